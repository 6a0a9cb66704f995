"""A file of a run directory that is cut off: one message, whose advice works."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bystander.core.errors import BystanderError
from bystander.engine.run import run_study
from bystander.results.results import Results
from bystander.study.config.study import load

AGAIN = "remove it and run again"
ADVICE = {
    "provenance.json": "put it back, or run the study in another directory with --out",
    "personas.json": AGAIN, "plan.json": AGAIN, "files.json": AGAIN, "audit.json": AGAIN, "preregistration.json": AGAIN,
    "tables.json": AGAIN, "analysis.json": "`bystander report RUN` makes it anew",
    "study.yaml": "is not the study that a run saves", "measurements.parquet": "it writes the tables anew",
}  # fmt: skip


def used(study: Path, run: Path) -> None:
    """Taken up, analyzed, and read for a report."""
    run_study(load(str(study)), run)
    results = Results.open(run)
    assert results.analysis.leakage.height
    assert results.report_input().renderings


@pytest.mark.parametrize("name", ADVICE)
def test_what_the_message_advises_works(name: str, tiny_run: Path, tmp_path: Path):
    study = tiny_run.parent / "study" / "tiny.yaml"
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    broken = run / name
    whole = broken.read_bytes()
    broken.write_text("{half a rec")
    with pytest.raises(BystanderError) as caught:
        used(study, run)
    assert str(broken) in str(caught.value)
    assert ADVICE[name] in str(caught.value)
    if name == "provenance.json":
        broken.write_bytes(whole)
    elif name == "analysis.json":
        Results.open(run).report()
    else:
        broken.unlink()
    used(study, run)
