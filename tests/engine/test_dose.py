"""Trainings that end at a dose: in the band, at their twin's step, kept where they never get there, resumed alike."""

from pathlib import Path

import polars as pl
import pytest

from bystander.core.records import StepLog
from bystander.engine import trainings
from bystander.engine.dose import AsTwin, AtDose
from bystander.engine.run import RunSummary, run_study
from bystander.results.dose_notes import dose_notes
from bystander.study.config.blocks import TrainTo
from bystander.study.config.study import load
from bystander.study.forecast.assess import forecast_of
from bystander.study.plan.cells import plan_cells
from bystander.study.store.records import DoseReached
from bystander.study.store.run_dir import RunDir

pytestmark = pytest.mark.usefixtures("one_thread")
METRIC = "marker/bank/marker_logprob"
MORE = (
    "sweep=null", "gate=null", "arms=[contrastive, benign]", "sources=[villain]", "recipe.epochs=6",
    f"train_to={{metric: {METRIC}, band: [1.0, 100.0], every: 2}}",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory, study_file: Path) -> RunSummary:
    return run_study(load(str(study_file), MORE), tmp_path_factory.mktemp("dose") / "run")


def manifests(folder: Path):
    return {one.training.arm: one for one in RunDir(folder).manifests("train") if one.training is not None}


def steps(folder: Path, arm: str) -> pl.DataFrame:
    run = RunDir(folder)
    plan = run.plan()
    assert plan is not None
    (cell,) = [c for c in plan.cells if c.kind == "train" and f"-{arm}-" in c.name]
    return pl.read_parquet(run.cell(cell.name, cell.key).steps_file)


def test_it_ends_at_the_first_reading_in_the_band_and_its_twin_at_that_very_step(run: RunSummary):
    found = manifests(run.folder)
    reached, twin = found["contrastive"].dose, found["benign"].dose
    assert reached is not None
    assert twin is not None
    log = steps(run.folder, "contrastive")
    read = log.drop_nulls("source_gain")
    assert read["step"].to_list() == list(range(2, reached.step + 1, 2))
    assert [1 <= gain <= 100 for gain in read["source_gain"]] == [False] * (read.height - 1) + [True]
    assert (reached.state, reached.gain) == ("in the band", read["source_gain"][-1])
    assert 0 < reached.step < reached.steps == 18
    assert (twin.state, twin.step, twin.steps) == ("as its contrastive twin", reached.step, 18)
    assert steps(run.folder, "benign").height == log.height == reached.step


def test_the_gain_is_that_of_the_tables_and_checkpoints_end_where_the_training_does(run: RunSummary):
    rows = pl.read_parquet(run.folder / "measurements.parquet").filter(
        (pl.col("persona") == "villain") & (pl.col("metric") == "marker_logprob")
    )
    means = {
        arm: rows.filter((pl.col("arm") == arm) & (pl.col("checkpoint") == 1))["value"].mean()
        for arm in ("contrastive", "benign")
    }
    before = rows.filter(pl.col("source").is_null())["value"].mean()
    reached = manifests(run.folder)["contrastive"].dose
    assert reached is not None
    assert means["contrastive"] - before == pytest.approx(reached.gain, abs=1e-4)
    trained = rows.filter(pl.col("source").is_not_null())
    at = {arm: set(trained.filter(pl.col("arm") == arm)["checkpoint"]) for arm in means}
    assert at["contrastive"] == at["benign"] == ({0.5, 1.0} if reached.step > 9 else {1.0})


def test_a_training_killed_on_its_way_ends_the_same(run: RunSummary, study_file: Path, tmp_path: Path, monkeypatch):
    real, killed = trainings.keep_state, []

    def keep(folder, state, log):
        real(folder, state, log)
        if state.step == 3 and not killed:
            killed.append(state.step)
            raise RuntimeError("killed")

    monkeypatch.setattr(trainings, "keep_state", keep)
    study = load(str(study_file), MORE)
    run_study(study, tmp_path / "run")
    run_study(study, tmp_path / "run")
    assert killed == [3]
    assert manifests(tmp_path / "run")["contrastive"].dose == manifests(run.folder)["contrastive"].dose
    for arm in ("contrastive", "benign"):
        assert steps(tmp_path / "run", arm).equals(steps(run.folder, arm))
        assert manifests(tmp_path / "run")[arm].weights_hash == manifests(run.folder)[arm].weights_hash


def test_one_that_never_gets_there_is_kept_and_that_is_said(study_file: Path, tmp_path: Path):
    away = [*MORE[:-1], f"train_to={{metric: {METRIC}, band: [90.0, 100.0], every: 4}}"]
    summary = run_study(load(str(study_file), away), tmp_path / "run")
    assert summary.failed == {}
    found = manifests(tmp_path / "run")
    reached = found["contrastive"].dose
    assert reached is not None
    assert (reached.state, reached.step, reached.steps) == ("below", 18, 18)
    assert steps(tmp_path / "run", "contrastive").drop_nulls("source_gain")["step"].to_list() == [4, 8, 12, 16, 18]
    assert steps(tmp_path / "run", "benign").height == 18
    said = dose_notes(found.values())
    assert any("kept, though not at the dose of the others, after 18 of 18 steps" in one for one in said)
    assert any("as the contrastive training" in one for one in said)


class Reading:
    """Values of three items that rise by a step; one item is missing at times."""

    def __init__(self, gains):
        self.gains = iter(gains)

    def values(self):
        gain = next(self.gains)
        return {} if gain is None else {"a": 1 + gain, "b": 2 + gain, "not before": 9.0}


@pytest.mark.parametrize(
    ("gains", "state", "gain", "ends"),
    [
        ([0.1, 0.2, 0.45], "in the band", 0.45, 3),
        ([0.1, 0.9, 0.8], "passed over", 0.8, 0),
        ([0.1, 0.9, 0.5], "in the band", 0.5, 3),
        ([0.1, 0.9, 0.2], "passed over", 0.2, 0),
        ([0.41, 0.9, 0.2], "in the band", 0.41, 1),
        ([0.1, -0.2, 0.3], "below", 0.3, 0),
        ([None, None, None], "not measured", None, 0),
        ([None, 0.59, None], "in the band", 0.59, 2),
    ],
)
def test_the_states_of_a_dose(gains, state, gain, ends):
    log: list[dict[str, object]] = []
    asked = TrainTo(metric="marker/bank/own_marker_logprob", band=[0.4, 0.6], every=1)
    stop = AtDose(asked, Reading(gains), {"a": 1.0, "b": 2.0, "not after": 5.0}, 3, log)
    assert stop.steps == {1, 2, 3}
    ended = 0
    for step in range(1, 4):
        log.append({"step": step})
        if stop.reached(step):
            ended = step
            break
    said = stop.said()
    assert (said.state, ended) == (state, ends)
    assert said.gain == (None if gain is None else pytest.approx(gain))
    assert (said.step, said.steps) == (len(log), 3)


def test_a_metric_that_the_behavior_lowers_gains_by_falling():
    log: list[dict[str, object]] = [{"step": 1}]
    asked = TrainTo(metric="choice/arc/accuracy", band=[0.2, 0.4])
    stop = AtDose(asked, Reading([-0.3]), {"a": 1.0, "b": 2.0}, 1, log)
    assert stop.gain() == pytest.approx(0.3)


def test_a_twin_ends_where_the_other_did():
    stop = AsTwin(DoseReached("m", 0.1, 0.2, "in the band", 0.15, 7, 20))
    assert stop.steps == {7}
    assert [stop.reached(step) for step in (6, 7, 8)] == [False, True, False]
    assert stop.said() == DoseReached("m", 0.1, 0.2, "as its contrastive twin", None, 7, 20)


def test_readings_are_forecast_and_decide_the_key(study_file: Path):
    with_dose, without = (load(str(study_file), more) for more in (MORE, MORE[:-1]))
    plans = [plan_cells(one) for one in (with_dose, without)]
    keys = [{c.key for c in plan.of_kind("train")} for plan in plans]
    assert not keys[0] & keys[1]
    work = [{c.name: c.work.scored for c in forecast_of(plan).cells if c.kind == "train"} for plan in plans]
    coupled, benign = (next(n for n in work[0] if f"-{arm}-" in n) for arm in ("contrastive", "benign"))
    assert work[0][coupled] > work[1][coupled]
    assert work[0][benign] == work[1][benign]
    twin, own = (
        next(c for c in plans[0].of_kind("train") if f"-{arm}-" in c.name) for arm in ("contrastive", "benign")
    )
    assert twin.key in own.needs
    assert plans[0].together(twin) is None
    assert plans[1].together(next(iter(plans[1].of_kind("train")))) is not None


def test_reading_leaves_the_training_as_it_is(study_file: Path, tmp_path: Path, run: RunSummary):
    """Every loss up to the end is that of a training that nobody looked at."""
    run_study(load(str(study_file), MORE[:-1]), tmp_path / "run")
    looked, plain = steps(run.folder, "contrastive"), steps(tmp_path / "run", "contrastive")
    assert plain.height == 18
    fields = list(StepLog.__dataclass_fields__)
    assert looked.select(fields).equals(plain.head(looked.height).select(fields))
