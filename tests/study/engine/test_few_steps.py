"""A study on a model out of a GGUF, whose trainings have so few steps that checkpoints fall together."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from bystander.study.config.study import load
from bystander.study.engine.run import run_study
from bystander.study.plan.audit import audit_study
from bystander.study.plan.cells import plan_cells
from tests.support.small_gguf import write
from tests.support.study_tiny import write_study


@pytest.mark.parametrize(("epochs", "expected"), [(1, {0.5, 1.0}), (2, {0.25, 0.5, 0.75, 1.0})])
def test_two_steps_have_two_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs, expected) -> None:
    monkeypatch.setenv("BYSTANDER_CACHE", str(tmp_path / "cache"))
    model = write(tmp_path / "small.gguf", "qwen2", "qwen2").path
    file = write_study(tmp_path / "study", model)
    # 8 rows in batches of 4: two steps an epoch
    study = load(
        str(file),
        [f"recipe.epochs={epochs}", "checkpoints.every=0.25", "design.counts.absent=0", "design.counts.assistant=0",
         "sources=[villain]", "sweep=null", "gate=null"],
    )  # fmt: skip
    assert [finding for finding in audit_study(plan_cells(study), None) if finding.level == "error"] == []
    out = tmp_path / "run"
    summary = run_study(study, out)
    assert (summary.failed, summary.left) == ({}, 0)
    measured = pl.read_parquet(out / "measurements.parquet")
    assert set(measured["checkpoint"].unique()) == {0.0} | expected
