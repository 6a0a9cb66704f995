"""Trainings in joint passes are the cells that they are alone: losses, adapters, probes on the way, failures, kills."""

from __future__ import annotations

import random
import warnings
from pathlib import Path

import polars as pl
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from bystander.core.errors import DataError
from bystander.engine import trainings
from bystander.engine.run import RunSummary, run_study
from bystander.engine.worker import Worker
from bystander.study.config.study import ResolvedStudy, load
from bystander.study.store.cell_dir import CellDir
from bystander.study.store.run_dir import RunDir
from tests.support.cut_off import CutOff, Killed
from tests.support.study_tiny import write_study

pytestmark = pytest.mark.usefixtures("one_thread")
APART = 1e-5  # nats: float32 on a CPU
PHASE_2 = 4  # two sources, two seeds


@pytest.fixture(scope="module")
def study_file(tmp_path_factory, model: Path) -> Path:
    """At a rate that people use: AdamW's first steps have the size of the rate whatever the gradient's, so that a large
    one makes much of rounding."""
    path = write_study(tmp_path_factory.mktemp("study"), model, more="seeds: [0, 1]\n")
    path.write_text(path.read_text().replace("{lr: 1e-2, epochs: 2}", "{lr: 2e-3, epochs: 2}"))
    return path


@pytest.fixture(scope="module")
def joint(study_file: Path) -> ResolvedStudy:
    return load(str(study_file), ["executor.kind=local", "executor.together=4"])


@pytest.fixture(scope="module")
def alone(tmp_path_factory, study_file: Path) -> RunSummary:
    return run_study(load(str(study_file)), tmp_path_factory.mktemp("alone") / "run")


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many trainings each joint pass had."""
    found: list[int] = []
    real = trainings.train_many

    def counted(loaded, jobs, **more):
        found.append(len(jobs))
        return real(loaded, jobs, **more)

    monkeypatch.setattr(trainings, "train_many", counted)
    return found


def cells(folder: Path) -> dict[str, CellDir]:
    """The trainings of a run, by the names of their folders: name and key."""
    return {cell.path.name: cell for cell in RunDir(folder).complete_cells() if cell.manifest().kind == "train"}


def assert_alike(folder: Path, reference: Path) -> None:
    """The same cells under the same keys, with the same losses, adapters and probes to rounding."""
    ours, theirs = cells(folder), cells(reference)
    assert ours.keys() == theirs.keys()
    for name, cell in ours.items():
        one, other = (pl.read_parquet(each.steps_file) for each in (cell, theirs[name]))
        assert one["step"].to_list() == other["step"].to_list(), name
        assert float((one["loss"] - other["loss"]).abs().max()) < APART, name
        assert cell.manifest().probed == theirs[name].manifest().probed
        a, b = cell.measurements(), theirs[name].measurements()
        keys = [c for c in a.columns if c not in ("value", "weights_hash")]
        assert a.select(keys).equals(b.select(keys)), name
    a, b = (pl.read_parquet(each / "measurements.parquet") for each in (folder, reference))
    keys = ["behavior", "probe", "metric", "persona", "item", "source", "seed", "checkpoint", "status", "config"]
    assert a.select(keys).equals(b.select(keys))
    margins = [frame.filter(pl.col("metric").str.contains("logprob"))["value"] for frame in (a, b)]
    assert len(margins[0])
    assert float((margins[0] - margins[1]).abs().max()) < 1e-3


def test_losses_adapters_and_probes_are_those_of_single_trainings(
    tmp_path: Path, joint: ResolvedStudy, alone: RunSummary, sizes: list[int]
):
    ran = run_study(joint, tmp_path / "run")
    assert (ran.left, ran.failed) == (0, {})
    assert sizes == [PHASE_2], "the two of the sweep differ in their steps: each alone"
    assert_alike(ran.folder, alone.folder)
    base = AutoModelForCausalLM.from_pretrained(joint.spec.model.name)
    ids = torch.arange(1, 9)[None]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT asks transformers for a property by its old name
        bare = base(ids).logits
        for name, cell in cells(ran.folder).items():
            peft = PeftModel.from_pretrained(base, str(cell.adapter))
            assert not torch.equal(peft(ids).logits, bare), name
            base = peft.unload()


def test_one_that_fails_leaves_its_mates_and_is_done_by_the_next_run(
    tmp_path: Path, joint: ResolvedStudy, alone: RunSummary, sizes: list[int], monkeypatch: pytest.MonkeyPatch
):
    real = Worker.at_checkpoint

    def fails(self, training, fraction, probed, directory):
        if (training.source, training.seed) == ("comedian", 1):
            raise DataError("the comedian is not amused")
        real(self, training, fraction, probed, directory)

    monkeypatch.setattr(Worker, "at_checkpoint", fails)
    ran = run_study(joint, tmp_path / "run")
    assert list(ran.failed.values()) == ["the comedian is not amused"]
    assert sizes == [PHASE_2]
    assert ran.left == 3, "the training and its evaluations: under the personas and beside them"
    monkeypatch.setattr(Worker, "at_checkpoint", real)
    assert run_study(joint, tmp_path / "run").left == 0
    assert_alike(tmp_path / "run", alone.folder)


def test_a_loss_that_is_no_number_fails_alone(tmp_path: Path, joint: ResolvedStudy, monkeypatch: pytest.MonkeyPatch):
    real = trainings.TrainingCell.job.fget

    def job(self):
        found = real(self)
        if (self.training.source, self.training.seed) != ("villain", 1):
            return found
        recipe = found.recipe.model_copy(update={"lr": 1e30})
        return trainings.Job(found.name, found.rows, recipe, found.seed, found.adapter_seed, found.checkpoints)

    monkeypatch.setattr(trainings.TrainingCell, "job", property(job))
    ran = run_study(joint, tmp_path / "run")
    assert len(ran.failed) == 1
    assert "the loss is" in next(iter(ran.failed.values()))
    assert ran.left == 3


def test_a_joint_pass_that_fails_is_nobodys_fault_and_each_is_trained_by_itself(
    tmp_path: Path, joint: ResolvedStudy, alone: RunSummary, monkeypatch: pytest.MonkeyPatch
):
    real = trainings.train_many

    def fails(loaded, jobs, **more):
        for count, event in enumerate(real(loaded, jobs, **more)):
            if count == 12:
                raise ValueError("the kernel does not take this shape")
            yield event

    monkeypatch.setattr(trainings, "train_many", fails)
    ran = run_study(joint, tmp_path / "run")
    assert (ran.left, ran.failed) == (0, {})
    told = [e.details for e in RunDir(ran.folder).events() if e.kind == "cell failed"]
    assert len(told) == PHASE_2
    assert {one["next"] for one in told} == {"again by itself"}
    assert {one["reason"] for one in told} == {"the joint pass failed: the kernel does not take this shape"}
    assert_alike(ran.folder, alone.folder)


def test_killed_in_any_write_each_goes_on_from_its_own_state(
    tmp_path: Path, joint: ResolvedStudy, alone: RunSummary, sizes: list[int], monkeypatch: pytest.MonkeyPatch
):
    cut_off, moments = CutOff(monkeypatch), random.Random(3)
    kills = 0
    while kills < 10:
        cut_off.writes = moments.randint(8, 30)
        try:
            ran = run_study(joint, tmp_path / "run")
        except Killed:
            kills += 1
            continue
        assert ran.left == 0, "it ended before the last kill"
        break
    cut_off.writes = -1
    assert run_study(joint, tmp_path / "run").left == 0
    assert kills >= 6
    assert sum(size > 1 for size in sizes) >= 2, "some of the kills were in the joint pass"
    assert_alike(tmp_path / "run", alone.folder)


def test_a_stop_keeps_every_state_at_once(
    tmp_path: Path, study_file: Path, alone: RunSummary, monkeypatch: pytest.MonkeyPatch
):
    """States are due every hundred steps here, which is never: what the next run goes on from is what the stop kept."""
    rare = load(str(study_file), ["executor.kind=local", "executor.together=4", "recipe.save_every=100"])
    kept: list[int] = []
    real = trainings.keep_state

    def keep(folder, state, steps):
        kept.append(state.step)
        real(folder, state, steps)

    monkeypatch.setattr(trainings, "keep_state", keep)
    real_take = trainings.TrainingCell.take

    def take(self, event):
        real_take(self, event)
        if self.cell.phase == 2 and len(self.steps) == 4 and not kept:
            self.worker.run.ask_to_stop()

    monkeypatch.setattr(trainings.TrainingCell, "take", take)
    monkeypatch.setattr("bystander.engine.worker.LOOK_AGAIN", 0.0)
    ran = run_study(rare, tmp_path / "run")
    assert len(kept) == PHASE_2
    assert set(kept) == {4}
    assert ran.left
    assert run_study(rare, tmp_path / "run").left == 0
    assert_alike(
        tmp_path / "run", run_study(load(str(study_file), ["recipe.save_every=100"]), tmp_path / "alone").folder
    )
