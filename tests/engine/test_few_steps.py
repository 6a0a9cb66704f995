"""A study on a model out of a GGUF, whose trainings have so few steps that checkpoints fall together."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from bystander.engine.run import run_study
from bystander.results.results import Results
from bystander.study.config.study import load
from bystander.study.forecast.workload import Workload, counter_for
from bystander.study.plan.audit import audit_study
from bystander.study.plan.cells import plan_cells
from tests.support.small_gguf import write
from tests.support.study_tiny import write_study


@pytest.mark.parametrize(
    ("epochs", "batch", "expected"),
    [(1, 4, {0.5, 1.0}), (3, 8, {0.25, 0.75, 1.0}), (2, 4, {0.25, 0.5, 0.75, 1.0})],
)
def test_few_steps_have_few_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: int, batch: int, expected: set[float]
) -> None:
    monkeypatch.setenv("BYSTANDER_CACHE", str(tmp_path / "cache"))
    model = write(tmp_path / "small.gguf", "qwen2", "qwen2").path
    file = write_study(tmp_path / "study", model)
    # 8 rows in batches of 4 are two steps an epoch, in batches of 8 one
    study = load(
        str(file),
        [f"recipe.epochs={epochs}", f"recipe.batch_size={batch}", "checkpoints.every=0.25", "design.counts.absent=0", "design.counts.assistant=0",
         "sources=[villain]", "sweep=null", "gate=null"],
    )  # fmt: skip
    plan = plan_cells(study)
    assert [finding for finding in audit_study(plan, None) if finding.level == "error"] == []
    out = tmp_path / "run"
    summary = run_study(study, out)
    assert (summary.failed, summary.left) == ({}, 0)
    measured = pl.read_parquet(out / "measurements.parquet")
    assert set(measured["checkpoint"].unique()) == {0.0} | expected
    assert Results.open(out).report().is_file()
    # The forecast counts the checkpoints that there are.
    work, count = Workload(plan, counter_for(str(model))), counter_for(str(model)).count
    (cell,) = plan.of_kind("train")
    probed = sum(plan.probes["marker"].work(some, count).sampled for some in (plan.contexts[:3], plan.parts.beside))
    assert work.of(cell).sampled == (len(expected) - 1) * probed
