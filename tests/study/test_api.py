"""`Study.run` does what `bystander run` does: it writes the report, and never returns as if all were well."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bystander import Results, Study, StudyError
from bystander.core.errors import DataError
from bystander.engine.worker import Worker
from tests.support.study_tiny import make_model, write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, embedded: Path) -> Study:
    folder = tmp_path_factory.mktemp("study")
    return Study.load(write_study(folder, make_model(folder / "model")), ["sweep=null", "gate=null"])


def test_it_writes_the_report_and_says_when_cells_failed(study: Study, tmp_path: Path, monkeypatch):
    real = Worker.do

    def do(self, cell):
        if cell.name.startswith("train-marker-comedian"):
            raise DataError("row 3 of the comedian is empty")
        return real(self, cell)

    monkeypatch.setattr(Worker, "do", do)
    with pytest.raises(StudyError) as raised:
        study.run(tmp_path / "run")
    said = str(raised.value)
    assert re.search(r"is not complete: cells that failed: 1, cells left: [23]\.", said), "it, and what needs it"
    assert [fault.partition(": ")[2] for fault in raised.value.faults] == ["row 3 of the comedian is empty"]
    assert (tmp_path / "run" / "report.html").is_file(), "what is complete is reported all the same"
    assert Results.open(tmp_path / "run").measurements["source"].drop_nulls().unique().to_list() == ["villain"]
    monkeypatch.undo()
    first = (tmp_path / "run" / "report.html").read_bytes()
    results = study.run(tmp_path / "run")
    assert set(results.measurements["source"].drop_nulls()) == {"villain", "comedian"}
    assert (tmp_path / "run" / "report.html").read_bytes() != first
    assert [event.kind for event in results.run.events()][-1] == "reported"


def test_nothing_measured_is_said_too(study: Study, tmp_path: Path, monkeypatch):
    def do(_self, _cell):
        raise DataError("nothing works today")

    monkeypatch.setattr(Worker, "do", do)
    with pytest.raises(StudyError, match="nothing works today"):
        study.run(tmp_path / "run")


def test_it_overrides_a_gate_as_the_command_does(tmp_path: Path, embedded: Path):
    file = write_study(tmp_path / "study", make_model(tmp_path / "model"), threshold=1.0)
    study = Study.load(file)
    stopped = study.run(tmp_path / "run")
    assert stopped.measurements["source"].drop_nulls().unique().to_list() == ["villain"]
    on = study.run(tmp_path / "run", override="the pilot showed the effect")
    assert set(on.measurements["source"].drop_nulls()) == {"villain", "comedian"}
