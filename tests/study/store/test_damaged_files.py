"""A file of a run directory that is cut off: one message, whose advice works."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.command import call
from tests.support.study_tiny import make_model, write_study

NAMES = (
    "provenance.json", "personas.json", "plan.json", "files.json", "audit.json", "preregistration.json", "tables.json",
    "analysis.json", "study.yaml", "measurements.parquet",
)  # fmt: skip
ADVICE = {
    "provenance.json": "put it back, or run the study in another directory with --out",
    "analysis.json": "`bystander report RUN` makes it anew",
    "study.yaml": "is not the study that a run saves",
    "measurements.parquet": "it writes the tables anew",
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, embedded: Path) -> tuple[Path, Path]:
    """A study file and its finished run, without a sweep."""
    from bystander.study.config.study import load
    from bystander.study.engine.run import run_study
    from bystander.study.results.results import Results

    folder = tmp_path_factory.mktemp("whole")
    text = write_study(folder, make_model(folder / "model")).read_text().split("\n")
    dropped = ("sweep:", "  source:", "  configs:", "  personas:", "gate:")
    (folder / "plain.yaml").write_text("\n".join(line for line in text if not line.startswith(dropped)))
    run_study(load(str(folder / "plain.yaml")), folder / "run")
    Results.open(folder / "run").report()
    return folder / "plain.yaml", folder / "run"


@pytest.mark.parametrize("name", NAMES)
def test_what_the_message_advises_works(name: str, whole: tuple[Path, Path], tmp_path: Path, capsys):
    study, finished = whole
    run = shutil.copytree(finished, tmp_path / "run")
    broken = run / name
    before = broken.read_bytes()
    broken.chmod(0o644)
    broken.write_text("{half a rec")
    code, _, err = call(capsys, "run", study, "--out", run)
    if code == 0:  # the study's own file decides, and the tables are made of cells: what a run writes is mended by it
        assert name in ("study.yaml", "measurements.parquet")
        code, _, err = call(capsys, "report", run)
    assert (code, err[:7]) == (2, "error: ")
    assert str(broken) in err
    assert ADVICE.get(name, "remove it and run again") in err
    if name == "provenance.json":
        broken.write_bytes(before)
    elif name != "analysis.json":
        broken.unlink()
    else:
        assert call(capsys, "report", run)[0] == 0
    assert call(capsys, "run", study, "--out", run)[0] == 0
