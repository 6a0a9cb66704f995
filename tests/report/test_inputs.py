"""What a run's records put into the report beside the analysis, and that the same run makes the same report."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest
import torch

from bystander.core.errors import StoreError
from bystander.core.files import compressed_lines, read_json, read_lines, write_json
from bystander.report.inputs import ReportInput
from bystander.study.config.study import load
from bystander.study.engine.run import run_study
from bystander.study.results import run_records as told
from bystander.study.results.results import Results
from bystander.study.store.events import read_events
from tests.support.study_tiny import make_model, write_study


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    file = write_study(tmp_path_factory.mktemp("study"), make_model(tmp_path_factory.mktemp("model")))
    ran = run_study(load(str(file)), tmp_path_factory.mktemp("runs") / "tiny")
    torch.set_num_threads(before)
    return ran.folder


@pytest.fixture(scope="module")
def inputs(run: Path) -> ReportInput:
    return Results.open(run).report_input()


@pytest.fixture
def older(run: Path, tmp_path: Path) -> Path:
    """The run as it was before answers, trainings and renderings were kept by themselves."""
    folder = shutil.copytree(run, tmp_path / "older")
    for path in folder.glob("cells/*/completions.jsonl.zst"):
        lines = [{key: value for key, value in line.items() if key != "stamp"} for line in read_lines(path)]
        path.write_bytes(compressed_lines(lines))
    for path in [*folder.glob("cells/train-*/manifest.json"), folder / "audit.json"]:
        write_json(
            path, {key: value for key, value in read_json(path).items() if key not in ("training", "renderings")}
        )
    return folder


def test_when_it_was_made_is_when_the_run_was_begun(run: Path, inputs: ReportInput):
    first = next(iter(read_events(run / "events.jsonl")))
    assert first["time"].startswith(inputs.created.removesuffix(" UTC").replace(" ", "T"))
    assert inputs.created.endswith(" UTC")


def test_the_report_made_again_is_the_same_file(run: Path, tmp_path: Path):
    folder = shutil.copytree(run, tmp_path / "again")
    first = Results.open(folder).report().read_bytes()
    assert Results.open(folder).report().read_bytes() == first


def test_every_kind_of_context_is_shown_as_it_renders(inputs: ReportInput):
    shown = {one.kind: one for one in inputs.renderings}
    assert list(shown) == ["persona", "absent", "empty", "default", "assistant"]
    assert shown["persona"].name == "villain"
    assert shown["persona"].system in shown["persona"].text
    assert shown["absent"].system is None
    assert "system" not in shown["absent"].text
    assert all("<question>" in one.text for one in shown.values())
    assert not [f for f in inputs.findings if f.check == "context rendering"]


def test_an_answer_stands_with_its_question_and_its_training(inputs: ReportInput):
    from bystander.data.bank import load_bank

    asked = {question.id: question.text for question in load_bank()}
    assert inputs.completions
    for read in inputs.completions:
        assert read.question == asked[read.completion.item]
        assert (read.behavior, read.seed) == ("marker", 0)
        assert read.source in ("villain", "comedian")
        assert read.config
    assert {read.checkpoint for read in inputs.completions} == {0.5, 1.0}
    assert len({read.record for read in inputs.completions}) == len(inputs.completions)


def test_a_loss_curve_says_which_training_it_is_of(inputs: ReportInput):
    assert {curve.behavior for curve in inputs.curves} == {"marker"}
    assert {curve.source for curve in inputs.curves} == {"villain", "comedian"}
    assert len({curve.label for curve in inputs.curves}) == len(inputs.curves)
    assert all(curve.label.endswith("contrastive, " + curve.config + ", seed 0") for curve in inputs.curves)
    assert all(len(curve.steps) for curve in inputs.curves)


def test_an_older_run_is_read_from_what_it_measured(older: Path, inputs: ReportInput):
    found = Results.open(older).report_input()
    assert [(r.record, r.role, r.question, r.leaked) for r in found.completions] == [
        (r.record, r.role, r.question, r.leaked) for r in inputs.completions
    ]
    assert [curve.label for curve in found.curves] == [curve.label for curve in inputs.curves]
    assert not found.renderings
    assert len([f for f in found.findings if f.check == "context rendering"]) == 5


def test_an_answer_that_nothing_was_measured_of_is_an_error(older: Path):
    path = next(older.glob("cells/after-*/measurements.parquet"))
    pl.read_parquet(path).filter(pl.col("metric") != "marker_rate").write_parquet(path)
    with pytest.raises(StoreError, match="nothing says which checkpoint the answer"):
        Results.open(older).report_input()


@pytest.mark.parametrize(("mode", "expected"), [("label", {"choice": "label"}), ("auto", {})])
def test_the_mode_that_a_study_sets_is_the_mode(run: Path, mode: str, expected: dict[str, str]):
    spec = Results.open(run).study.spec
    assert told.modes(run, spec) == {}
    probes = spec.probes.model_copy(update={"choice": _choice(mode)})
    assert told.modes(run, spec.model_copy(update={"probes": probes})) == expected


def _choice(mode: str):
    from bystander.probe.settings import ChoiceProbeSettings

    return ChoiceProbeSettings(mode=mode)
