"""A study with a benign arm: it is trained beside the other, measured like it, and swept with it."""

from pathlib import Path

import polars as pl
import pytest

from bystander.core.files import read_json
from bystander.engine.run import RunSummary, run_study
from bystander.study.config.study import load
from bystander.study.forecast.plan_report import plan_report
from bystander.study.plan.cells import plan_cells

pytestmark = pytest.mark.usefixtures("one_thread")
PAIRED = (
    "behavior",
    "source",
    "config",
    "lr",
    "epochs",
    "seed",
    "checkpoint",
    "probe",
    "dataset",
    "metric",
    "persona",
    "item",
    "role",
)
WITH_BENIGN = "arms=[contrastive, benign]"


@pytest.fixture(scope="module")
def run(tmp_path_factory, study_file: Path) -> RunSummary:
    return run_study(load(str(study_file), [WITH_BENIGN]), tmp_path_factory.mktemp("benign") / "run")


def test_every_contrastive_row_has_its_benign_twin(run: RunSummary):
    rows = pl.read_parquet(run.folder / "measurements.parquet").filter(pl.col("source").is_not_null())
    twins = {arm: rows.filter(pl.col("arm") == arm).select(*PAIRED).sort(PAIRED) for arm in ("contrastive", "benign")}
    assert twins["contrastive"].height > 100
    assert twins["contrastive"].equals(twins["benign"])
    assert set(twins["benign"]["checkpoint"]) == {0.5, 1.0}
    hashes = rows.group_by("arm", "source", "config").agg(pl.col("weights_hash").unique())
    assert len({h for found in hashes["weights_hash"] for h in found}) == sum(map(len, hashes["weights_hash"]))


def test_the_sweep_trains_the_twin_of_every_configuration_and_the_gate_reads_the_claims_arm(
    run: RunSummary, study_file: Path
):
    gate = next(
        read_json(path) for path in run.folder.glob("cells/*/manifest.json") if read_json(path)["kind"] == "gate"
    )
    swept = {(row["arm"], row["config"]) for row in gate["gate"]["phase"]}
    assert {arm for arm, _ in swept} >= {"contrastive"}
    assert set(gate["gate"]["picks"]) == {"marker"}
    plan = plan_cells(load(str(study_file), [WITH_BENIGN]))
    swept_trainings = [c.training for c in plan.of_kind("train") if c.phase == 1]
    assert sorted((t.arm, t.lr) for t in swept_trainings) == [
        ("benign", 1e-3), ("benign", 1e-2), ("contrastive", 1e-3), ("contrastive", 1e-2),
    ]  # fmt: skip


def test_the_plan_says_what_the_benign_arm_costs(study_file: Path):
    without, having = (plan_report(load(str(study_file), more)) for more in ((), (WITH_BENIGN,)))
    assert any("no benign arm" in remark and "costs about" in remark for remark in without.remarks)
    (said,) = [remark for remark in having.remarks if "benign arm" in remark]
    assert "4 of 8 trainings" in said  # two of the sweep, one for each source
    assert having.forecast.hours > without.forecast.hours
