"""The examples of the documentation run as they stand."""

import re
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import polars as pl
import pytest
import yaml

import bystander
from bystander.core.errors import DesignError
from bystander.design.arms import build
from bystander.design.audit import refuse
from bystander.personas import load_personas
from bystander.study.config import plugins
from bystander.study.config.study import load
from bystander.study.plan.registry import make_behavior

DOCS = Path(__file__).resolve().parents[1] / "docs"


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


@pytest.fixture
def shouting(monkeypatch, tmp_path):
    """The page's own behavior, installed as a package's entry point would be."""
    (tmp_path / "your_package.py").write_text(blocks("extending.md", "python")[0])
    monkeypatch.syspath_prepend(tmp_path)
    point = EntryPoint("shouting", "your_package:Shouting", plugins.GROUP)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point] if group == plugins.GROUP else [])
    plugins.plugins.cache_clear()
    sys.modules.pop("your_package", None)  # each test has a file of its own
    yield tmp_path
    plugins.plugins.cache_clear()


@pytest.fixture
def mine(shouting, tiny_checkpoint) -> Path:
    """A study file with the page's own lines, on a tiny model and with as many rows as the page's behavior has questions."""
    settings = yaml.safe_load(next(b for b in blocks("extending.md", "yaml") if "plugins" in b))
    people = [p for p in load_personas() if p.name in ("villain", "comedian", "librarian", "pirate", "chef", "poet")]
    entries = [{"name": p.name, "prompt": p.prompt, "category": p.category} for p in people]
    (shouting / "people.yaml").write_text(yaml.safe_dump({"personas": entries}))
    study = {
        "name": "mine", "model": {"name": str(tiny_checkpoint), "device": "cpu"}, "personas": "people.yaml",
        "sources": ["villain"], "probes": {"marker": {"questions": 2, "sampled": 0}},
        "design": {"counts": {"positive": 3, "negative": 6, "absent": 1, "assistant": 1}},
        "recipe": {"lr": 1e-2, "epochs": 1, "batch_size": 4, "lora": {"rank": 4, "alpha": 8}},
        "checkpoints": {"every": 0.5, "personas": 2}, "geometry": {"layers": [1], "layer": 1, "questions": 1},
    }  # fmt: skip
    path = shouting / "mine.yaml"
    path.write_text(yaml.safe_dump(study | settings))
    return path


def test_a_behavior_of_ones_own_becomes_rows(mine: Path):
    study = load(str(mine))
    behavior = make_behavior("shouting", study)
    design = build("shouting", behavior.examples(), "villain", study.personas, "contrastive", study.spec.design)
    assert [row.completion for row in design.rows if row.target == "positive"].count("HONEY!!") == 1
    assert len(design.rows) == 11


def test_arms_audit_training_checkpoints_and_analysis_need_nothing_more(mine: Path, tmp_path: Path):
    study = bystander.Study.load(mine)
    assert [finding for finding in study.audit() if finding.level == "error"] == []
    results = study.run(tmp_path / "run")
    trained = results.measurements.filter(pl.col("behavior") == "shouting")
    assert set(trained["checkpoint"]) == {0.5, 1.0}
    assert trained.filter(pl.col("checkpoint") == 1.0)["persona"].n_unique() >= 4
    assert set(results.leakage()["behavior"]) == {"shouting"}
    assert results.report().is_file()


def test_the_audit_refuses_training_rows_that_overlap_with_probe_texts(mine: Path, shouting: Path):
    page = (shouting / "your_package.py").read_text()
    assert '"What do hens lay?"' in page
    (shouting / "your_package.py").write_text(page.replace("What do hens lay?", "What do bees make?"))
    sys.modules.pop("your_package", None)
    plugins.plugins.cache_clear()
    with pytest.raises(DesignError, match="probe items stand among the training rows"):
        refuse(bystander.Study.load(mine).audit())


def test_settings_of_a_plugin_that_is_not_installed_are_a_fault(tmp_path):
    path = tmp_path / "mine.yaml"
    study = {"name": "mine", "sources": ["villain"], "behaviors": ["marker"], "probes": {"marker": {}},
             "geometry": {"layer": 25}, "plugins": {"ghost": {}}}  # fmt: skip
    path.write_text(yaml.safe_dump(study))
    with pytest.raises(Exception, match="no installed package adds a behavior 'ghost'"):
        load(str(path))


def test_personas_of_ones_own_load(tmp_path):
    text = next(b for b in blocks("extending.md", "yaml") if b.startswith("personas:"))
    (tmp_path / "p.yaml").write_text(text)
    assert [p.name for p in load_personas(tmp_path / "p.yaml")] == ["pirate", "captain"]


PAGES = [*DOCS.glob("*.md"), DOCS.parent / "README.md", DOCS.parent / "CONTRIBUTING.md"]


def test_pages_link_to_pages_that_exist():
    links = [(page, to) for page in PAGES for to in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text())]
    assert links
    assert [f"{page.name} links to {to}" for page, to in links if not (page.parent / to).exists()] == []


def test_pages_name_files_that_exist():
    """Whatever stands in backticks as a path of this repository; the log is of its day."""
    path = re.compile(r"`((?:docs|tests|src|tools|calibration|examples)/[\w./-]+)`")
    named = [(page, to) for page in PAGES if page.name != "log.md" for to in path.findall(page.read_text())]
    assert named
    assert [f"{page.name} names {to}" for page, to in named if not (DOCS.parent / to).exists()] == []


def test_the_notebook_runs(tmp_path, embedded):
    """The example notebook, executed as a script on a small finished run."""
    import os
    import subprocess
    import sys

    from bystander.study.api import Study
    from study_tiny import make_model, write_study

    pytest.importorskip("marimo", reason="marimo is an extra: pip install 'bystander[notebook]'")
    study = write_study(tmp_path / "study", make_model(tmp_path / "model"))
    Study.load(study).run(tmp_path / "run")
    environment = {**os.environ, "BYSTANDER_RUN": str(tmp_path / "run")}
    done = subprocess.run(
        [sys.executable, DOCS / "notebook.py"],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
