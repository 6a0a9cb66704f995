"""A stop of a large study: within fifteen seconds the process is gone, and the next run or `report` makes the tables."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from bystander.core import files
from bystander.core.records import Measurement, as_dict
from bystander.engine.collect import behind, bring_up_to_date
from bystander.engine.run import run_study
from bystander.study.config.study import load
from bystander.study.plan.cells import plan_cells
from bystander.study.store.cell_dir import MEASUREMENT_SCHEMA
from bystander.study.store.records import CellManifest
from bystander.study.store.run_dir import RunDir
from tests.support.study_tiny import make_model, write_study

CELLS, ROWS = 200, 10_000  # two evaluations a training of the sweep: four million measurements
PROMISED = 15.0
CHILD = """
import sys, time
from pathlib import Path
from bystander.study.config.study import load
from bystander.engine.run import run_study
from bystander.study.store.records import CellManifest

class Endless:
    seconds_loading = 0.0
    def __init__(self, plan, run, bar): pass
    def run_key(self, key, shrink=0):
        print("at work", flush=True)
        time.sleep(600)

print("stopped:", run_study(load(sys.argv[1]), Path(sys.argv[2]), make_runner=Endless).stopped, flush=True)
"""


@pytest.fixture
def large(tmp_path: Path) -> tuple[Path, Path]:
    """A study of many complete evaluations, with some left, and its run directory; the tables are not made."""
    rates = ", ".join(f"{i}e-6" for i in range(1, CELLS + 1))
    path = write_study(tmp_path / "study", make_model(tmp_path / "model"))
    text = path.read_text().replace(
        "configs: [{lr: 1e-3, epochs: 1}, {lr: 1e-2, epochs: 2}]", f"grid: {{lr: [{rates}], epochs: [1]}}"
    )
    path.write_text(text.replace("gpu_hours: 1.0", "gpu_hours: 1000.0"))
    study, run = load(str(path)), RunDir(tmp_path / "run")

    class Interrupting:
        seconds_loading = 0.0

        def __init__(self, *_more) -> None: ...

        def run_key(self, key: str, shrink: int = 0) -> None:
            raise KeyboardInterrupt

    run_study(study, run.path, make_runner=Interrupting)
    row = as_dict(Measurement("marker", "marker", "d", "rate", "persona", "villain", "0", value=0.5, source="villain"))
    frame = pl.DataFrame([row], schema=MEASUREMENT_SCHEMA).select(pl.all().repeat_by(ROWS).list.explode())
    frame = frame.with_columns(pl.int_range(ROWS).cast(pl.String).alias("item"))
    files.write_parquet(tmp_path / "one.parquet", frame)
    for cell in plan_cells(study).before_gate():
        if cell.kind == "evaluate":
            directory = run.cell(cell.name, cell.key)
            directory.begin()
            os.link(tmp_path / "one.parquet", directory.path / "measurements.parquet")
            directory.finish([], CellManifest(cell.kind, cell.name, cell.key))
    return path, run.path


def test_the_process_is_gone_in_time_and_owes_the_tables_to_the_next(large: tuple[Path, Path]):
    path, folder = large
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), str(folder)], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "at work\n"
    begun = time.monotonic()
    child.send_signal(signal.SIGINT)
    said, _ = child.communicate(timeout=60)
    took = time.monotonic() - begun
    assert said == "stopped: Ctrl-C\n"
    assert took < PROMISED, took
    run = RunDir(folder)
    assert behind(run)
    assert rows(run) == 0, "as the run before left them: no time was spent on them"
    assert not run.stop_file.exists()
    bring_up_to_date(run)
    assert not behind(run)
    assert rows(run) == 2 * (CELLS + 1) * ROWS, "the untrained model's evaluations too"


def rows(run: RunDir) -> int:
    return int(pl.scan_parquet(run.measurements_file).select(pl.len()).collect().item())
