"""What a run's records put into the report beside the analysis, and that the same run makes the same report."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC
from pathlib import Path

import pytest
import torch

from bystander.engine.run import run_study
from bystander.report.inputs import ReportInput
from bystander.results.results import Results
from bystander.study.config.study import load
from bystander.study.store.run_dir import RunDir
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


def test_when_it_was_made_is_when_the_run_was_begun(run: Path, inputs: ReportInput):
    first = RunDir(run).events()[0]
    assert f"{first.time.astimezone(UTC):%Y-%m-%d %H:%M} UTC" == inputs.created
    assert inputs.created.endswith(" UTC")


def test_the_report_made_again_is_the_same_file(run: Path, tmp_path: Path):
    folder = shutil.copytree(run, tmp_path / "again")
    first = Results.open(folder).report().read_bytes()
    assert Results.open(folder).report().read_bytes() == first


def test_every_kind_of_context_is_shown_as_it_renders(inputs: ReportInput):
    shown = {one.kind: one for one in inputs.renderings}
    assert list(shown) == ["persona", "absent", "default", "empty", "assistant"]
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


@pytest.mark.parametrize(("mode", "expected"), [("label", {"choice": "label"}), ("auto", {})])
def test_the_mode_that_a_study_sets_is_the_mode(run: Path, mode: str, expected: dict[str, str]):
    results = Results.open(run)
    assert results._modes() == {}
    spec = results.study.spec
    probes = spec.probes.model_copy(update={"choice": _choice(mode)})
    study = replace(results.study, spec=spec.model_copy(update={"probes": probes}))
    assert replace(results, study=study)._modes() == expected


def _choice(mode: str):
    from bystander.probe.settings import ChoiceProbeSettings

    return ChoiceProbeSettings(mode=mode)
