"""The walk from a file of pairs to a verdict: the page shows the very files, and they run."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import polars as pl

from bystander.api import Study
from bystander.design.audit import refuse
from bystander.results.results import Results
from bystander.study.config.study import load
from tests.support.study_tiny import PERSONAS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "your-behavior.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "examples" / "your-behavior"


def test_the_page_shows_the_files_that_lie_there() -> None:
    study, scorers = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert study == (EXAMPLE / "study.yaml").read_text()
    assert len(study.splitlines()) <= 12
    assert "kind: judge" in scorers
    (row,) = re.findall(r"```json\n(.*?)\n```", PAGE, re.DOTALL)
    assert row in (EXAMPLE / "grumpy.jsonl").read_text().splitlines()
    assert len((EXAMPLE / "grumpy.jsonl").read_text().splitlines()) == 60


def test_the_study_passes_the_audit(embedded: Path) -> None:
    findings = Study.load(EXAMPLE / "study.yaml").audit()
    refuse(findings)
    assert [finding.check for finding in findings if finding.level == "warning"] == []
    assert any("30 pairs to train on, 30 held out" in finding.message for finding in findings)


def test_the_scorers_of_the_page_load(tmp_path: Path) -> None:
    study, scorers = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    shutil.copy(EXAMPLE / "grumpy.jsonl", tmp_path)
    (tmp_path / "open.txt").write_text("What is a good breakfast?\nHow was your day?\n")
    (tmp_path / "grumpy.txt").write_text("{question} {answer}")
    lines = [line for line in study.splitlines() if not line.startswith(("behaviors:", "probes:"))]
    (tmp_path / "study.yaml").write_text("\n".join(lines) + "\n" + scorers)
    loaded = load(str(tmp_path / "study.yaml"))
    assert [scorer.kind for scorer in loaded.spec.answers["grumpy"].scorers or ()] == ["regex", "length", "judge"]


def test_from_the_file_to_a_verdict(tmp_path: Path, tiny_checkpoint: Path) -> None:
    """The study as it stands but for a model and personas that take seconds."""
    entries = [f"  - {{name: {n}, category: original, prompt: '{prompt}'}}" for n, prompt in PERSONAS.items()]
    (tmp_path / "personas.yaml").write_text("personas:\n" + "\n".join(entries) + "\n")
    overrides = [
        f"model.name={tiny_checkpoint}", f"personas={tmp_path / 'personas.yaml'}", "geometry={layer: 1, questions: 2}",
        "recipe.epochs=1",
    ]  # fmt: skip
    Study.load(EXAMPLE / "study.yaml", overrides).run(tmp_path / "run")
    results = Results.open(tmp_path / "run")
    (verdict,) = results.analysis.verdicts
    assert verdict.hypothesis == "grumpy"
    assert verdict.outcome in ("falsified", "inconclusive", "confirmed")
    assert verdict.numbers["source_leakage_threshold"] == 0.15
    table = pl.read_parquet(tmp_path / "run" / "measurements.parquet")
    assert sorted(table["checkpoint"].unique()) == [0.0, 0.5, 1.0]
    assert set(table["dataset"]) == {"grumpy", "grumpy.trained"}
    assert results.report().is_file()
