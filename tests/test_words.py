"""What is written here is for a reader outside: no number of an issue, no path that only its writers have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import bystander

SOURCE = Path(bystander.__file__).parent
ROOT = SOURCE.parents[1]
TEXT = {".py", ".md", ".yaml", ".yml", ".toml", ".js", ".css", ".html", ".txt", ".sh", ".cfg", ""}
READ = ("src", "tests", "calibration", "tools", "examples", "docs", ".ci")  # and the files of the root
# Spelled in parts, so that this file does not hold what it looks for. A finding of Bandit's is an "issue" too: only one
# with a number is meant, by whatever name.
NUMBERED = re.compile(r"\b(?:issue|ticket|PR|pull request)s?" + r"\s*#?\s*[0-9]+", re.IGNORECASE)
OUTSIDE = re.compile(r"\.\./" + r"shared|(?<![\w.])/" + r"(?:work|home|root|tmp/base)/")


def texts() -> list[Path]:
    """The repository's own texts. What a run made (`docs/results`, the notebook's output) is no text of ours."""
    found = [path for path in ROOT.iterdir() if path.is_file() and path.name not in {".git", ".env"}]
    for folder in READ:
        found += [path for path in (ROOT / folder).rglob("*") if path.is_file()]
    made = (ROOT / "docs" / "results", ROOT / "docs" / "notebook.ipynb")
    return [
        path
        for path in sorted(found)
        if path.suffix in TEXT and "__pycache__" not in path.parts and not any(path.is_relative_to(one) for one in made)
    ]


def hits(pattern: re.Pattern[str], paths: list[Path]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in paths
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]


def test_the_search_reads_the_repository():
    read = {path.relative_to(ROOT).as_posix() for path in texts()}
    assert {"README.md", "pyproject.toml", "Makefile", "src/bystander/__init__.py", "docs/log.md"} <= read


def test_nothing_names_an_issue():
    assert hits(NUMBERED, texts()) == []


def test_no_path_that_an_outside_reader_does_not_have():
    """Data that a test needs lies where the fixture `shared_data` says, and is called what it is."""
    assert hits(OUTSIDE, texts()) == []


@pytest.mark.parametrize("line", ["# is" + "sue 5: a gate", "see is" + "sue #12", "as PR" + " 3 says"])
def test_the_search_sees_a_number(line: str):
    assert NUMBERED.search(line)


@pytest.mark.parametrize(
    ("line", "seen"),
    [
        ("(.." + "/shared/bench)", True),
        ("/wo" + "rk/main/x", True),
        ("out/work/x", False),
        ("the work of a day", False),
    ],
)
def test_the_search_sees_a_path(line: str, seen: bool):
    assert bool(OUTSIDE.search(line)) == seen
