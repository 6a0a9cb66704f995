"""The examples of the documentation run as they stand."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bystander.core.errors import StudyError
from bystander.core.records import BARE
from bystander.personas import built_in_contexts, context_sets, load_personas
from bystander.study.config.study import load
from bystander.study.plan.parts import StudyParts
from tests.support.program import program

DOCS = Path(__file__).resolve().parents[1] / "docs"
PLUGIN = DOCS.parent / "examples" / "plugin"


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def test_the_page_on_extending_shows_the_very_package_that_a_test_installs():
    (code,) = blocks("extending.md", "python")
    assert code == (PLUGIN / "bystander_shouting.py").read_text()
    assert (PLUGIN / "study.yaml").read_text() in blocks("extending.md", "yaml")
    assert blocks("extending.md", "toml")[0].strip() in (PLUGIN / "pyproject.toml").read_text()


# In a process of its own: what stands behind the doors is found once a process.
BEHIND_THE_DOORS = """
import sys, tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from bystander.core import doors

plugin = Path(sys.argv[1])
points = tomllib.loads((plugin / "pyproject.toml").read_text())["project"]["entry-points"]
doors.entry_points = lambda group: [EntryPoint(k, v, group) for k, v in points.get(group, {}).items()]
sys.path.insert(0, str(plugin))

import bystander_shouting
from bystander.core.errors import DesignError, StudyError
from bystander.design.audit import refuse
from bystander.api import Study

study = str(plugin / "study.yaml")
refuse(Study.load(study).audit())
bystander_shouting.Shouting.held_out_texts = lambda self: {q.id: q.text for q in self.questions()[0]}
try:
    refuse(Study.load(study).audit())
except DesignError as error:
    print(error)
del bystander_shouting.Capitals.headline
doors.load.cache_clear()
try:
    doors.load("probe", "capitals")
except StudyError as error:
    print(error)
"""


def test_what_the_page_says_is_refused_is_refused(embedded):
    """Training rows that overlap with what the behavior keeps from training; a class that leaves something out."""
    command = [sys.executable, "-c", BEHIND_THE_DOORS, str(PLUGIN)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "probe items stand among the training rows" in done.stdout
    assert "the probe 'capitals' (bystander_shouting:Capitals) does not say headline" in done.stdout


def test_a_behavior_that_no_package_adds_is_a_fault(tmp_path):
    path = tmp_path / "mine.yaml"
    study = "name: mine\nsources: [villain]\nbehaviors: [ghost]\nprobes: {marker: {}}\ngeometry: {layer: 1}\n"
    path.write_text(study)
    with pytest.raises(StudyError, match=r"line 3: .*'ghost'"):
        load(str(path))


def test_personas_of_ones_own_load(tmp_path):
    text = next(b for b in blocks("extending.md", "yaml") if b.startswith("personas:"))
    (tmp_path / "p.yaml").write_text(text)
    assert [p.name for p in load_personas(tmp_path / "p.yaml")] == ["pirate", "captain"]


PAGES = [*DOCS.glob("*.md"), DOCS.parent / "README.md", DOCS.parent / "CONTRIBUTING.md"]
LOGS = ("log.md", "log-earlier.md")  # each entry is of its day


def test_pages_link_to_pages_that_exist():
    links = [(page, to) for page in PAGES for to in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text())]
    assert links
    assert [f"{page.name} links to {to}" for page, to in links if not (page.parent / to).exists()] == []


def test_pages_name_files_that_exist():
    """Whatever stands in backticks as a path of this repository; the log is of its day."""
    path = re.compile(r"`((?:docs|tests|src|tools|calibration|examples)/[\w./-]+)`")
    named = [(page, to) for page in PAGES if page.name not in LOGS for to in path.findall(page.read_text())]
    assert named
    assert [f"{page.name} names {to}" for page, to in named if not (DOCS.parent / to).exists()] == []


def test_the_notebook_runs(tmp_path, embedded):
    """The example notebook, executed as a script on a small finished run."""
    from bystander.api import Study
    from tests.support.study_tiny import make_model, write_study

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


STUDY = """
name: page
sources: [villain]
behaviors: [marker]
probes: {marker: {}}
geometry: {layer: 2}
"""


def test_the_page_on_contexts_shows_blocks_that_load(tmp_path):
    own, sources = blocks("contexts.md", "yaml")
    path = tmp_path / "page.yaml"
    path.write_text(STUDY + own)
    found = {context.name: context for context in StudyParts(load(str(path))).beside}
    assert list(found)[:4] == list(BARE)
    assert found["quiz"].after == "\n\nOne word."
    assert [found[name].kind for name in ("few_shot", "villain_said", "begun")] == [
        "turns",
        "persona_in_user",
        "prefix",
    ]
    path.write_text(STUDY.replace("sources: [villain]\n", "") + sources)
    assert load(str(path)).spec.sources == ["villain", "trigger"]


def test_the_page_on_contexts_names_what_ships():
    page = (DOCS / "contexts.md").read_text()
    assert all(f"`{name}`" in page for name in [*context_sets(), *built_in_contexts()])


WANTED = [
    "first-study",
    "your-behavior",
    "own-model",
    "cluster",
    "judge",
    "reading-a-report",
    "statistics",
    "extending",
]
TOOL = DOCS.parent / "tools" / "docs" / "settings_pages.py"


def test_there_is_a_page_for_each_thing_and_none_is_long():
    pages = {page.stem: len(page.read_text().splitlines()) for page in DOCS.glob("*.md")}
    assert set(WANTED) - set(pages) == set()
    assert {name: lines for name, lines in pages.items() if lines > 250} == {}


def test_the_site_leads_to_every_page():
    named = re.findall(r"^ +- ([\w-]+\.md)$", (DOCS.parent / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(named) == sorted(page.name for page in DOCS.glob("*.md"))


def test_the_settings_reference_is_that_of_the_settings():
    """Every key with its type, default, unit and reason; made anew by `make generated`."""
    tool = program(TOOL)
    for name, text in tool.pages().items():
        assert (DOCS / name).read_text() == text, f"{name}: run `make generated`"
        rows = [line for line in text.splitlines() if line.startswith("| `")]
        assert rows
        assert [row for row in rows if not row.rstrip(" |").endswith(".")] == [], "each key says what it is"


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="the site's packages are apart: pip install -r requirements-docs.lock")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=DOCS.parent, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    api = (tmp_path / "api" / "index.html").read_text()
    assert "similarity_correlation" in api
    assert not re.search(r'(?:src|href)="https?://(?:fonts|cdn|unpkg)', api), "a page loads nothing from elsewhere"


COMMAND = re.compile(r"^(?:    )?bystander ([a-z]+)\b(.*?)(?: {2,}.*| # .*)?$", re.MULTILINE)


@pytest.mark.parametrize("page", [p for p in PAGES if p.name not in LOGS], ids=lambda page: page.stem)
def test_the_commands_of_a_page_exist_with_their_options(page):
    """Every `bystander COMMAND --option` in a block of a page is one that the command line takes."""
    import typer.main

    from bystander.cli.main import app

    commands = typer.main.get_command(app).commands
    fenced = "\n".join(re.findall(r"```\w*\n(.*?)```", page.read_text(), re.DOTALL))
    for name, rest in COMMAND.findall(fenced):
        assert name in commands, f"{page.name}: bystander {name}"
        command = commands[name]
        taken = {option for one in list_of(command) for option in (*one.opts, *one.secondary_opts)} | {"--help"}
        assert set(re.findall(r"(?<=\s)--?[a-z][a-z-]*", rest)) <= taken, f"{page.name}: bystander {name}{rest}"


def list_of(command):
    """The options of a command, and of the commands below it."""
    below = [one for inner in getattr(command, "commands", {}).values() for one in list_of(inner)]
    return [*command.params, *below]


GALLERY = sorted((DOCS / "gallery").glob("*.py"))


@pytest.mark.parametrize("book", GALLERY, ids=lambda book: book.stem)
def test_a_worked_example_is_shown_as_it_ran(book):
    """Every cell of the file in its order, each code cell run, none failed, and not more than one reads."""
    made = book.with_suffix(".ipynb")
    assert made.stat().st_size < 200_000
    cells = json.loads(made.read_text())["cells"]
    code = ["".join(cell["source"]).strip() for cell in cells if cell["cell_type"] == "code"]
    outputs = [output for cell in cells if cell["cell_type"] == "code" for output in cell["outputs"]]
    assert [output for output in outputs if output["output_type"] == "error"] == []
    assert sum(output["output_type"] != "stream" for output in outputs) >= 5
    text = book.read_text()
    for cell in code:
        for line in cell.splitlines():
            assert line.strip() in text, line
    assert "Verdict" in json.dumps(outputs)


@pytest.mark.slow
@pytest.mark.parametrize("book", GALLERY, ids=lambda book: book.stem)
def test_a_worked_example_runs(book, tmp_path, embedded):
    """As a script, from nothing. Slow: it trains a real model."""
    pytest.importorskip("marimo", reason="marimo is an extra: pip install 'bystander[notebook]'")
    command = [sys.executable, book]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr
