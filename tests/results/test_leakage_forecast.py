"""A forecast of leakage from a tiny study: made before training, registered by the run, scored by the report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from bystander.core.errors import StoreError
from bystander.core.progress import Silent
from bystander.engine import base_cells
from bystander.engine.run import run_study
from bystander.results.forecast_score import scored_forecast
from bystander.results.leakage_forecast import predict_leakage
from bystander.results.results import Results
from bystander.study.config.study import load
from bystander.study.plan.cells import plan_cells
from bystander.study.store.run_dir import RunDir
from tests.support.study_tiny import make_model, write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, embedded: Path):
    folder = tmp_path_factory.mktemp("study")
    path = write_study(folder, make_model(folder / "model"))
    return load(str(path), ["sweep=null", "gate=null", "sources=[villain]", "checkpoints.every=1.0"])


@pytest.fixture(scope="module")
def made(study, tmp_path_factory: pytest.TempPathFactory):
    """The run directory with its forecast, and the forecast."""
    run = RunDir(tmp_path_factory.mktemp("run") / "run")
    return run, predict_leakage(study, run, Silent())


@pytest.fixture(scope="module")
def ran(study, made):
    """The same after the run, and how many cells that found complete."""
    run, found = made
    summary = run_study(study, run.path)
    assert not summary.failed
    return run, found, summary


def test_every_context_is_foretold_before_anything_is_trained(study, made):
    run, found = made
    assert not [cell for cell in run.complete_cells() if cell.manifest().kind == "train"]
    assert {row.name for row in found.rows} == {
        *(persona.name for persona in study.personas), "(absent)", "(default)", "(empty)", "(assistant)",
    }  # fmt: skip
    roles = {row.name: row.role for row in found.rows}
    assert roles["villain"] == "source"
    assert roles["(default)"] == "held-out"
    assert roles["(absent)"] == "negative"  # an anchor of the training
    assert all(row.low <= row.expected <= row.high for row in found.rows)


def test_what_was_measured_is_the_runs_own(ran):
    _, _, summary = ran
    assert summary.found == 3  # geometry, and the untrained model with and without a persona


def test_the_contexts_beside_change_nothing_for_the_personas(study, ran, tmp_path: Path):
    run, _, _ = ran
    plan = plan_cells(study)
    cell = plan.of_kind("geometry")[0]
    folder = run.cell(cell.name, cell.key)
    beside = pl.read_parquet(folder.beside_file.read_bytes())
    assert set(beside["persona"]) == {"(absent)", "(default)", "(empty)", "(assistant)"}
    from bystander.lm.model import load as load_model
    from bystander.study.store.cell_dir import CellDir

    alone = CellDir(tmp_path / "alone")
    alone.begin()
    loaded = load_model(study.spec.model.name, device="cpu", dtype="float32")
    base_cells.measure_geometry(plan.parts, loaded, alone, Silent(), {}, ())
    assert pl.read_parquet(alone.similarities_file.read_bytes()).equals(
        pl.read_parquet(folder.similarities_file.read_bytes())
    )


def test_the_run_registers_it_and_the_report_scores_it(ran):
    run, found, _ = ran
    assert (
        json.loads(run.registration_file.read_text())["forecast"] == json.loads(run.forecast_file.read_text())["hash"]
    )
    page = Results.open(run.path).report().read_text()
    assert 'id="forecast"' in page
    scores = Results.open(run.path).report_input().forecast
    assert [(one.source, one.group) for one in scores] == [("villain", "bystanders"), ("villain", "beside")]
    held_out = [row for row in found.rows if row.role == "held-out" and row.context == "persona"]
    assert scores[0].n == len(held_out)
    assert 'data-record="inputs/forecast/marker/villain/bystanders"' in page


def test_after_the_fact_there_is_no_forecast(study, ran):
    run, _, _ = ran
    with pytest.raises(StoreError, match="registered already"):
        predict_leakage(study, run, Silent())


def test_a_forecast_that_was_changed_is_neither_scored_nor_run(study, ran):
    run, _, _ = ran
    text = run.forecast_file.read_text()
    saved = json.loads(text)
    saved["forecast"]["rows"][0]["rank"] += 0.5
    try:
        run.forecast_file.write_text(json.dumps(saved))
        with pytest.raises(StoreError, match="was changed"):
            scored_forecast(run, Results.open(run.path).tables_for_fit())
        with pytest.raises(StoreError, match="was changed"):
            run_study(study, run.path)
        run.forecast_file.unlink()
        with pytest.raises(StoreError, match="not the forecast of leakage that was registered"):
            run_study(study, run.path)
    finally:
        run.forecast_file.write_text(text)


def test_a_run_without_a_forecast_has_no_score(study, tmp_path: Path, ran):
    run, _, _ = ran
    assert scored_forecast(RunDir(tmp_path), replace(Results.open(run.path).tables_for_fit())) == []
