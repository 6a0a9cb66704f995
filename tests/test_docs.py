"""The examples of the documentation run as they stand."""

import re
from pathlib import Path

import pytest

from bystander.personas import load_personas

DOCS = Path(__file__).resolve().parents[1] / "docs"


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


PLUGIN = DOCS.parent / "examples" / "plugin"


def test_the_page_on_extending_shows_the_very_package_that_a_test_installs():
    (code,) = blocks("extending.md", "python")
    assert code == (PLUGIN / "bystander_shouting.py").read_text()
    assert (PLUGIN / "study.yaml").read_text() in blocks("extending.md", "yaml")
    assert blocks("extending.md", "toml")[0].strip() in (PLUGIN / "pyproject.toml").read_text()


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
