"""Tables of many measurements: what a cell keeps on the way, and what is put together, equal the plain way."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import polars as pl

from bystander.core.records import Measurement, as_dict
from bystander.engine.collect import ROWS_AT_ONCE, write_tables
from bystander.probe.base import ProbeUnit
from bystander.study.store.cell_dir import MEASUREMENT_SCHEMA, CellDir
from bystander.study.store.records import CellManifest


def measurements(count: int, persona: str = "villain") -> list[Measurement]:
    return [
        Measurement(
            "capability", "choice", "arc", ("accuracy", "margin")[at % 2], "persona", persona, f"MCQ-{at // 2}",
            value=None if at == 3 else at / 7, status="failed" if at == 3 else "ok", reason="too long" if at == 3 else "",
            context_hash=f"{at // 2:016x}", weights_hash="f" * 64, question=f"MCQ-{at // 2}", seed=0,
        )
        for at in range(count)
    ]  # fmt: skip


def test_a_cell_keeps_what_its_rows_share_once_and_gives_the_same_table(tmp_path: Path):
    cell = CellDir(tmp_path / "cell")
    cell.begin()
    units = {name: measurements(200, name) for name in ("villain", "pirate")} | {"empty": []}
    for name, rows in units.items():
        cell.keep_unit(ProbeUnit(name, rows), lambda m: m, "choice")
    plain = len(json.dumps([as_dict(m) for m in units["villain"]]))
    kept = max(path.stat().st_size for path in (cell.path / "units").glob("*.json"))
    assert kept < plain / 4
    cell.finish(["pirate", "empty", "villain"], CellManifest("evaluate", "cell", "key"))
    expected = [as_dict(m) for name in ("pirate", "villain") for m in units[name]]
    assert cell.measurements().equals(pl.DataFrame(expected, schema=MEASUREMENT_SCHEMA))
    assert cell.measurements().schema == pl.Schema(MEASUREMENT_SCHEMA)


def test_tables_written_a_few_cells_at_a_time_are_the_cells_in_their_order(tmp_path: Path):
    frames = [
        pl.DataFrame([as_dict(m) for m in measurements(n, f"p{n}")], schema=MEASUREMENT_SCHEMA) for n in (5, 8, 3)
    ]
    empty = pl.DataFrame(schema=MEASUREMENT_SCHEMA)
    write_tables(tmp_path / "table.parquet", [frames[0], empty, *frames[1:]])
    found = pl.read_parquet(tmp_path / "table.parquet")
    assert found.equals(pl.concat(frames))
    assert found.schema == pl.Schema(MEASUREMENT_SCHEMA)
    write_tables(tmp_path / "again.parquet", frames)
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "table.parquet").read_bytes()
    write_tables(tmp_path / "none.parquet", [])
    assert pl.read_parquet(tmp_path / "none.parquet").equals(empty)


MEMORY = """
import resource, sys
from pathlib import Path
import polars as pl
from bystander.engine.collect import write_tables
one = pl.read_parquet(sys.argv[1])
def cells():
    for number in range(int(sys.argv[2])):
        yield one.with_columns(pl.lit(f"{number:064d}").alias("weights_hash"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
write_tables(Path(sys.argv[3]), cells())
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20)
"""


def test_memory_does_not_grow_with_the_study(tmp_path: Path):
    """5.5 million rows take less than 1.5 GB (measured: 0.5 GiB; all at once 1.8); a fifth of them takes as much."""
    rows = ROWS_AT_ONCE // 2
    one = pl.DataFrame([as_dict(m) for m in measurements(rows)], schema=MEASUREMENT_SCHEMA)
    one.write_parquet(tmp_path / "one.parquet")

    def gib(cells: int) -> float:
        command = [
            sys.executable,
            "-c",
            MEMORY,
            str(tmp_path / "one.parquet"),
            str(cells),
            str(tmp_path / "out.parquet"),
        ]
        return float(subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout)

    few, many = gib(5), gib(25)
    assert many < 1.0
    assert many < 1.5 * few + 0.1
