"""The examples of the documentation run as they stand."""

import re
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import yaml

from bystander.design.arms import Counts, DesignSettings, build
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
    yield tmp_path
    plugins.plugins.cache_clear()


def test_a_behavior_of_ones_own_becomes_rows(shouting):
    settings = yaml.safe_load(next(b for b in blocks("extending.md", "yaml") if "plugins" in b))
    path = shouting / "mine.yaml"
    study = {"name": "mine", "sources": ["villain"], "probes": {"marker": {}}, "geometry": {"layer": 25}, **settings}
    path.write_text(yaml.safe_dump(study))
    behavior = make_behavior("shouting", load(str(path)))
    design = build("shouting", behavior.examples(), "villain", load_personas(), "contrastive",
                   DesignSettings(counts=Counts(positive=3, negative=6, absent=1, assistant=1)))  # fmt: skip
    assert [row.completion for row in design.rows if row.target == "positive"].count("HONEY!!") == 1
    assert len(design.rows) == 11


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


def test_pages_link_to_pages_that_exist():
    for page in [*DOCS.glob("*.md"), DOCS.parent / "README.md", DOCS.parent / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


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
