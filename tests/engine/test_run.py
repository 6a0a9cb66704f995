"""The engine on a study that takes a second: phases, gate, approval, caps, failures, kills, locks, full disks.

The reference is one unbroken run; whatever is done to another one, its tables must come out the same to the last bit.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
import torch

from bystander.core import files
from bystander.core.errors import DataError, StoreError, StudyError
from bystander.core.files import read_json
from bystander.core.records import BARE
from bystander.engine.run import RunOptions, RunSummary, run_study
from bystander.engine.worker import Worker
from bystander.results.status import status
from bystander.study.config.study import ResolvedStudy, load
from bystander.study.plan.cells import plan_cells
from bystander.study.store.cell_dir import CellDir
from bystander.study.store.lock import claimed
from bystander.study.store.records import CellManifest, GateDecision
from bystander.study.store.run_dir import RunDir
from tests.support.command import call
from tests.support.cut_off import CutOff, Killed
from tests.support.small_disk import enlarge, small_disk
from tests.support.study_tiny import write_study

pytestmark = pytest.mark.usefixtures("one_thread")
TABLES = ("measurements.parquet", "similarities.parquet", "personas.parquet")


@pytest.fixture(scope="module")
def study(study_file: Path) -> ResolvedStudy:
    return load(str(study_file))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, study: ResolvedStudy) -> RunSummary:
    return run_study(study, tmp_path_factory.mktemp("unbroken") / "run")


def tables(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in TABLES}


def kinds(folder: Path) -> list[str]:
    return [event.kind for event in RunDir(folder).events()]


def test_a_run_goes_through_all_phases_and_the_gate(unbroken: RunSummary, study: ResolvedStudy):
    found = RunDir(unbroken.folder).gate().found
    assert found is not None
    plan = plan_cells(study, found.picks)
    assert unbroken.done_now == len(plan.cells) == 18
    assert [cell.phase for cell in plan.cells] == [0, 0, *[1] * 9, 3, *[2, 3, 3] * 2]
    assert (unbroken.failed, unbroken.left, unbroken.stopped, unbroken.gate) == ({}, 0, "", "go")
    order = [kind for kind in kinds(unbroken.folder) if kind not in ("progress", "cell done", "spent")]
    assert order == ["clarified", "planned", "reviewed", "preflight", "launched", "gated"]


def test_phase_2_is_trained_with_what_the_declared_rule_picked(unbroken: RunSummary, study: ResolvedStudy):
    found = RunDir(unbroken.folder).gate().found
    assert found is not None
    effects = {row["config"]: row["source_effect"] for row in found.phase}
    assert set(effects) == {"lr=0.001,epochs=1", "lr=0.01,epochs=2"}
    assert found.picks == {"marker": max(effects, key=lambda config: effects[config])}
    frame = pl.read_parquet(unbroken.folder / "measurements.parquet")
    main = frame.filter(pl.col("source") == "comedian")
    assert main["config"].unique().to_list() == list(found.picks.values())


def test_no_persona_is_counted_twice_where_sweep_and_phase_2_meet(unbroken: RunSummary):
    frame = pl.read_parquet(unbroken.folder / "measurements.parquet")
    key = [
        "probe",
        "dataset",
        "metric",
        "context",
        "persona",
        "item",
        "source",
        "behavior",
        "arm",
        "config",
        "seed",
        "checkpoint",
    ]
    assert frame.select(key).is_duplicated().sum() == 0
    untrained = frame.filter(pl.col("source").is_null())
    assert untrained.filter(context="persona")["persona"].n_unique() == 8
    assert untrained.filter(pl.col("context") != "persona")["persona"].unique().sort().to_list() == sorted(BARE)


def test_a_run_holds_adapters_and_no_merged_copy_of_the_base(unbroken: RunSummary, model: Path):
    """Merged 15 GB copies have filled disks: all of a cell's weights together are smaller than the base."""
    base = sum(path.stat().st_size for path in model.glob("*.safetensors"))
    trained = [cell for cell in (unbroken.folder / "cells").iterdir() if cell.name.startswith("train-")]
    kept = {cell.name: list(cell.rglob("*.safetensors")) for cell in trained}
    assert kept
    assert all([path.name for path in paths] == ["adapter_model.safetensors"] for paths in kept.values())
    assert all(sum(path.stat().st_size for path in paths) < base for paths in kept.values())


def test_a_second_run_does_nothing(unbroken: RunSummary, study: ResolvedStudy):
    before = {path: path.stat().st_mtime_ns for path in unbroken.folder.rglob("*.parquet")}
    again = run_study(study, unbroken.folder, make_runner=refuse_to_work)
    assert (again.done_now, again.found) == (0, 18)
    assert {path: path.stat().st_mtime_ns for path in unbroken.folder.rglob("*.parquet")} == before


def refuse_to_work(*_args):
    raise AssertionError("a cell was started")


def test_the_pre_registration_is_frozen_before_the_first_training(unbroken: RunSummary, study: ResolvedStudy):
    events = RunDir(unbroken.folder).events()
    first = next(e for e in events if e.started and e.details["cell"].startswith(("sweep", "train")))
    frozen = unbroken.folder / "preregistration.json"
    assert frozen.stat().st_mtime < first.time.timestamp()
    kept = read_json(frozen)
    assert kept["declaration"]["layer"] == 1
    assert kept["declaration"]["hypotheses"][0]["name"] == "fixed"


def test_a_changed_pre_registration_is_refused(tmp_path: Path, unbroken: RunSummary, study: ResolvedStudy):
    copy = tmp_path / "run"
    shutil.copytree(unbroken.folder, copy)
    kept = read_json(copy / "preregistration.json")
    kept["declaration"]["layer"] = 2
    (copy / "preregistration.json").write_text(json.dumps(kept))
    with pytest.raises(StoreError, match="registers something else"):
        run_study(study, copy)


def test_the_same_study_twice_gives_the_same_bits(tmp_path: Path, unbroken: RunSummary, study: ResolvedStudy):
    run_study(study, tmp_path / "run")
    assert tables(tmp_path / "run") == tables(unbroken.folder)


def test_killed_in_the_middle_of_any_write_it_resumes_to_the_same_bits(
    tmp_path: Path, unbroken: RunSummary, study: ResolvedStudy, monkeypatch
):
    """Every write can be the last: 12 of them are cut off between the bytes and the rename, each in a new run of the
    same directory."""
    cut_off, moments = CutOff(monkeypatch), random.Random(5)
    kills = 0
    while True:
        cut_off.writes = moments.randint(3, 14) if kills < 12 else -1
        try:
            ran = run_study(study, tmp_path / "run")
        except Killed:
            kills += 1
            continue
        break
    assert kills == 12
    assert ran.left == 0
    assert tables(tmp_path / "run") == tables(unbroken.folder)
    assert list((tmp_path / "run").rglob("*.tmp")) == []


ZYGOTE = """
import os, random, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from bystander.engine.run import run_study
from bystander.engine.worker import Worker
from bystander.study.config.study import load
moments = random.Random(7)
kills = 0
events = Path(sys.argv[2]) / "events.jsonl"
def starts():
    return events.read_text().count('"started"') if events.exists() else 0
while True:
    before = starts()
    child = os.fork()
    if child == 0:
        ran = run_study(load(sys.argv[1]), Path(sys.argv[2]))
        os._exit(0 if ran.left == 0 and not ran.failed else 3)
    if kills < int(sys.argv[3]):
        while kills >= 2 and starts() == before:  # the first two may be hit while they still prepare
            time.sleep(0.005)
        time.sleep(moments.uniform(0.0, float(sys.argv[4])))
        if os.waitpid(child, os.WNOHANG)[0] == 0:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            kills += 1
            continue
        print("finished before the last kill", kills)
    else:
        assert os.waitpid(child, 0)[1] == 0
    break
print("kills", kills)
"""


@pytest.mark.parametrize("asked", [7, pytest.param(20, marks=pytest.mark.slow)])
def test_sigkill_at_random_moments_gives_the_same_bits(
    asked: int, tmp_path: Path, unbroken: RunSummary, study_file: Path
):
    """Real kills of real processes; they fork from one that has imported everything, so that each starts at once."""
    seconds = sum(e.details["seconds"] for e in RunDir(unbroken.folder).events() if e.kind == "cell done")
    command = [sys.executable, "-c", ZYGOTE, str(study_file), str(tmp_path / "run"), str(asked), str(seconds / 12)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600, env=one_thread_env())
    assert done.returncode == 0, done.stderr
    kills = int(done.stdout.split()[-1])
    assert kills == asked, done.stdout
    assert tables(tmp_path / "run") == tables(unbroken.folder)
    spent = [e for e in RunDir(tmp_path / "run").events() if e.kind == "spent" and "note" in e.details]
    assert spent, "the time of the killed processes is paid too"


def one_thread_env() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def test_a_gate_that_says_stop_starts_no_phase_2_and_can_be_overridden(tmp_path: Path, model: Path):
    study = load(str(write_study(tmp_path / "study", model, threshold=1.0)))
    ran = run_study(study, tmp_path / "run")
    assert (ran.gate, ran.left) == ("stop", 0)
    assert "below the threshold of 1" in ran.gate_reason
    assert not list((tmp_path / "run" / "cells").glob("train-*"))
    assert status(RunDir(tmp_path / "run")).state == "gated"
    again = run_study(study, tmp_path / "run", make_runner=refuse_to_work)
    assert again.gate == "stop"
    with pytest.raises(StoreError, match="needs a reason"):
        run_study(study, tmp_path / "run", options=RunOptions(override=" "))
    on = run_study(study, tmp_path / "run", options=RunOptions(override="the pilot showed the effect"))
    assert (on.gate, on.left) == ("overridden", 0)
    assert list((tmp_path / "run" / "cells").glob("train-*"))
    gated = [e.details for e in RunDir(tmp_path / "run").events() if e.kind == "gated"]
    assert [e["decision"] for e in gated] == ["stop", "overridden"]
    assert "the pilot showed the effect" in gated[-1]["reason"]


def test_cells_of_another_run_bring_its_gate_and_what_the_gate_picked(tmp_path: Path, unbroken: RunSummary, study):
    """Cells copied into a directory that only has its header: phase 2 is trained with the pick, not with the assumption."""
    there = tmp_path / "run"
    with claimed(RunDir(there), study):
        pass
    for cell in (unbroken.folder / "cells").iterdir():
        if not cell.name.startswith(("train-", "after-")):
            shutil.copytree(cell, there / "cells" / cell.name)
    assumed, other = plan_cells(study).picks["marker"], "lr=0.001,epochs=1"
    manifest = next((there / "cells").glob("gate-*")) / "manifest.json"
    text = manifest.read_text()
    assert assumed in text
    assert assumed != other
    manifest.write_text(text.replace(f'"marker": "{assumed}"', f'"marker": "{other}"'))
    again = run_study(study, there)
    assert (again.failed, again.left, again.gate) == ({}, 0, "go")
    trained = [cell.name for cell in (there / "cells").glob("train-*")]
    assert len(trained) == 2
    assert all("lr0.001-epochs1" in name for name in trained)


def with_budget(study: ResolvedStudy, hours: float) -> ResolvedStudy:
    from dataclasses import replace

    budget = study.spec.budget.model_copy(update={"gpu_hours": hours})
    return replace(study, spec=study.spec.model_copy(update={"budget": budget}))


def test_above_the_budget_nothing_starts_without_the_hash_of_this_very_plan(tmp_path: Path, study: ResolvedStudy):
    poor = with_budget(study, 1e-9)
    with pytest.raises(StudyError, match="above the budget"):
        run_study(poor, tmp_path / "run", make_runner=refuse_to_work)
    assert not (tmp_path / "run").exists()
    other = plan_cells(with_budget(study, 2e-9)).hash
    with pytest.raises(StudyError, match="it is another plan"):
        run_study(poor, tmp_path / "run", options=RunOptions(approve=other), make_runner=refuse_to_work)
    digest = plan_cells(poor).hash
    ran = run_study(poor, tmp_path / "run", options=RunOptions(approve=digest[:12]), make_runner=Trivial)
    assert ran.done_now > 0
    assert "approved" in kinds(tmp_path / "run")


def test_spending_stops_at_the_cap_and_all_that_is_complete_is_kept(tmp_path: Path, study: ResolvedStudy, monkeypatch):
    from bystander.study.forecast import throughput as machine

    slow = machine.Rates("cpu", 1.0, 1.0, 1.0, "a very slow machine")
    monkeypatch.setattr("bystander.study.forecast.assess.rates_for", lambda *_args: slow)
    from bystander.study.forecast.assess import forecast_of

    hours = [cell.seconds / 3600 for cell in forecast_of(plan_cells(study)).cells]
    poor = with_budget(study, sum(hours))
    monkeypatch.setattr(Trivial, "hours", sum(hours) / 5)
    monkeypatch.setattr("bystander.engine.executor.time", Clock)
    ran = run_study(poor, tmp_path / "run", make_runner=Trivial)
    assert "the cap of" in ran.stopped
    assert 0 < ran.done_now < 18
    assert len(list((tmp_path / "run" / "cells").glob("*/manifest.json"))) == ran.done_now
    with pytest.raises(StudyError, match="above the budget"):
        run_study(poor, tmp_path / "run", make_runner=refuse_to_work)


class Clock:
    """Time that passes only when a test says so."""

    now = 0.0

    @classmethod
    def monotonic(cls) -> float:
        return cls.now


class Trivial:
    """A runner whose cells do nothing but say that they are complete. `hours`: what each pretends to have taken."""

    hours = 0.0
    seconds_loading = 0.0

    def __init__(self, plan, run: RunDir, bar) -> None:
        self.plan, self.run = plan, run

    def run_key(self, key: str, shrink: int = 0) -> None:
        cell = self.plan.by_key[key]
        gate = GateDecision("stop", "nothing was measured", {}, {}, []) if cell.kind == "gate" else None
        directory = self.run.cell(cell.name, cell.key)
        directory.finish([], CellManifest(cell.kind, cell.name, cell.key, gate=gate))
        if cell.kind == "geometry":
            pl.DataFrame(schema={"source": pl.String}).write_parquet(directory.similarities_file)
        if self.hours:
            Clock.now += self.hours * 3600


def test_one_failing_cell_does_not_stop_the_others_and_is_done_by_the_next_run(
    tmp_path: Path, unbroken: RunSummary, study: ResolvedStudy, monkeypatch
):
    real = Worker.do

    def do(self: Worker, cell):
        if cell.name.startswith("train-marker-comedian"):
            raise DataError("row 3 of the comedian is empty")
        return real(self, cell)

    monkeypatch.setattr(Worker, "do", do)
    ran = run_study(study, tmp_path / "run")
    assert list(ran.failed.values()) == ["row 3 of the comedian is empty"]
    assert ran.left == 3, "the training and what needs it: all personas, and the contexts beside them"
    assert ran.done_now == 15
    found = status(RunDir(tmp_path / "run"))
    assert found.state == "failed"
    assert list(found.failed.values()) == ["row 3 of the comedian is empty"]
    monkeypatch.undo()
    assert run_study(study, tmp_path / "run").left == 0
    assert tables(tmp_path / "run") == tables(unbroken.folder)


def test_out_of_memory_in_training_is_tried_again_with_smaller_batches(
    tmp_path: Path, study: ResolvedStudy, monkeypatch
):
    from bystander.train import loop

    real, sizes = loop.summed_loss, []

    def summed_loss(loaded, rows):
        sizes.append(len(rows))
        if len(rows) * max(len(row.ids) for row in rows) > 128:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(loaded, rows)

    monkeypatch.setattr(loop, "summed_loss", summed_loss)
    ran = run_study(study, tmp_path / "run")
    assert not ran.failed
    again = [e.details["next"] for e in RunDir(tmp_path / "run").events() if e.kind == "cell failed"]
    assert "again with batches of 1/2" in again


def test_a_run_directory_of_another_study_is_left_alone(tmp_path: Path, unbroken: RunSummary, study_file: Path):
    before = {path: path.stat().st_mtime_ns for path in unbroken.folder.rglob("*")}
    with pytest.raises(StoreError, match="holds another study"):
        run_study(load(str(study_file), ["recipe.epochs=1"]), unbroken.folder)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("do not touch")
    with pytest.raises(StoreError, match="not a run directory"):
        run_study(load(str(study_file)), tmp_path / "mine")
    assert {path: path.stat().st_mtime_ns for path in unbroken.folder.rglob("*")} == before


HOLDER = """
import sys, time
from pathlib import Path
from bystander.study.store.lock import claimed
from bystander.study.store.run_dir import RunDir
from bystander.study.config.study import load
with claimed(RunDir(Path(sys.argv[2])), load(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_process_says_who_holds_the_directory_and_a_dead_one_holds_nothing(
    tmp_path: Path, study: ResolvedStudy, study_file: Path
):
    folder = tmp_path / "run"
    first = subprocess.Popen([sys.executable, "-c", HOLDER, str(study_file), str(folder)], stdout=subprocess.PIPE)
    assert first.stdout is not None
    assert first.stdout.readline() == b"held\n"
    try:
        with pytest.raises(StoreError, match=f"being written by process {first.pid} on "):
            run_study(study, folder, make_runner=refuse_to_work)
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
        first.stdout.close()
    assert f"process {first.pid}" in (folder / "lock").read_text(), "the dead process left its name"
    run_study(study, folder, make_runner=Trivial)
    launched = next(e for e in RunDir(folder).events() if e.kind == "launched")
    assert f"process {first.pid}" in launched.details["took_over_from"]


def test_a_full_disk_is_a_clear_error_and_a_run_after_freeing_space_completes(
    tmp_path: Path, unbroken: RunSummary, study: ResolvedStudy, monkeypatch
):
    monkeypatch.setattr("bystander.engine.preflight.DISK_MARGIN", 0.0)  # else it would be told before anything starts
    with small_disk(tmp_path / "disk", "400k") as disk:
        with pytest.raises(StoreError, match="no space left") as caught:
            run_study(study, disk / "run")
        assert "free some space and run again" in str(caught.value)
        complete = list((disk / "run" / "cells").glob("*/manifest.json"))
        assert complete, "the disk was full before anything was complete: the test says nothing"
        for manifest in complete:
            cell = CellDir(manifest.parent)
            assert cell.manifest().key
            cell.measurements()
        enlarge(disk, "64m")
        assert run_study(study, disk / "run").left == 0
        assert tables(disk / "run") == tables(unbroken.folder)


def test_a_disk_that_is_full_when_an_adapter_is_written_is_said_and_leaves_no_half(
    tmp_path: Path, study_file: Path, monkeypatch, capsys
):
    monkeypatch.setattr("bystander.engine.preflight.DISK_MARGIN", 0.0)
    plain = ("sweep=null", "gate=null", "recipe.save_every=1000", "recipe.lora.rank=512")
    with small_disk(tmp_path / "disk", "1m") as disk:
        sets = [word for one in plain for word in ("--set", one)]
        code, _, err = call(capsys, "run", study_file, "--out", disk / "run", *sets)
        assert code == 2
        assert "error: no space left while writing " in err
        assert err.strip().endswith("/adapter: free some space and run again")
        cells = list((disk / "run" / "cells").iterdir())
        assert any((cell / "manifest.json").is_file() for cell in cells)
        assert [path for cell in cells for path in cell.glob("adapter/*")] == []


def test_1000_trivial_cells_cost_less_than_0_3_s_each(tmp_path: Path, model: Path):
    """In this process's own seconds, so that a busy machine fails nothing: the work is all in this process."""
    rates = ", ".join(f"{i}e-6" for i in range(1, 51))
    path = write_study(tmp_path / "study", model)
    text = path.read_text().replace(
        "configs: [{lr: 1e-3, epochs: 1}, {lr: 1e-2, epochs: 2}]",
        f"grid: {{lr: [{rates}], epochs: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]}}",
    )
    path.write_text(text)
    study = load(str(path), ["budget.gpu_hours=1000.0"])
    begun = time.process_time()
    ran = run_study(study, tmp_path / "run", make_runner=Trivial)
    took = time.process_time() - begun
    assert ran.done_now > 1000
    assert took / ran.done_now < 0.3
    begun = time.process_time()
    assert run_study(study, tmp_path / "run", make_runner=refuse_to_work).done_now == 0
    assert time.process_time() - begun < 5


def test_status_of_10_000_cells_answers_in_2_seconds(tmp_path: Path):
    folder = tmp_path / "run"
    cells = [
        {"key": f"{i:064d}", "name": f"cell-{i}", "kind": "evaluate", "phase": 1 + i % 3, "seconds": 2.0}
        for i in range(10_000)
    ]
    plan = {
        "hash": "0" * 64,
        "study": "large",
        "assumed": False,
        "hours": 5.5,
        "dollars": 0.0,
        "workers": 4,
        "rates": "measured",
        "cells": cells,
    }
    files.write_json(folder / "plan.json", plan)
    lines = []
    for index, cell in enumerate(cells[:6000]):
        name, key = cell["name"], cell["key"]
        event = {"time": "2026-01-01T00:00:00.000+00:00", "plan": "0" * 16, "cell": name, "key": key}
        lines.append({**event, "event": "progress", "state": "started"})
        if index < 5000:
            (folder / "cells" / f"{name}-{key[:12]}").mkdir(parents=True)
            (folder / "cells" / f"{name}-{key[:12]}" / "manifest.json").touch()
            lines += [{**event, "event": "cell done", "seconds": 4.0}, {**event, "event": "spent", "hours": 4 / 3600}]
        elif index < 5010:
            lines.append({**event, "event": "cell failed", "reason": "row 7", "next": "given up"})
    (folder / "events.jsonl").write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    begun = time.process_time()
    found = status(RunDir(folder))
    assert time.process_time() - begun < 2
    counts = {state: sum(phase.counts[state] for phase in found.phases) for state in found.phases[0].counts}
    assert counts == {"done": 5000, "running": 0, "failed": 10, "interrupted": 990, "waiting": 4000}
    assert found.spent.hours == pytest.approx(5000 * 4 / 3600)
    assert found.seconds_left == pytest.approx(5000 * 2.0 * 2 / 4), "what is left, at half the forecast speed, on four"


def test_a_review_that_says_stop_starts_nothing_without_a_recorded_reason(
    tmp_path: Path, study: ResolvedStudy, monkeypatch
):
    from bystander.engine import run
    from bystander.study.forecast.review import Review

    monkeypatch.setattr(run, "review_of", lambda *_args: Review((), 1.4, "STOP", ("add hypotheses",)))
    with pytest.raises(StudyError, match=r"the review says STOP \(1.4 of 5\)[\s\S]*add hypotheses"):
        run_study(study, tmp_path / "run", make_runner=refuse_to_work)
    assert not (tmp_path / "run").exists()
    run_study(study, tmp_path / "run", options=RunOptions(override="a dry run"), make_runner=Trivial)
    reviewed = next(e for e in RunDir(tmp_path / "run").events() if e.kind == "reviewed")
    assert reviewed.details["override"] == "a dry run"


def test_an_override_of_nothing_is_refused(tmp_path: Path, study: ResolvedStudy):
    with pytest.raises(StudyError, match="nothing to override"):
        run_study(study, tmp_path / "run", options=RunOptions(override="just in case"), make_runner=refuse_to_work)
    assert not (tmp_path / "run").exists()
