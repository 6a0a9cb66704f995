"""Broken behavior files, scorers and rubrics: all faults at once, each with its line, and nothing is written.

As in `broken/`, a study says itself what is wrong with it: `# fault: TEXT` behind a line, several of them where one line
has several. The faults of a file of answers stand together, under the line that names it, with the file's own lines.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bystander.cli import main as cli
from bystander.core.errors import StudyError
from bystander.study.config.study import load

FOLDER = Path(__file__).parent / "broken_behaviors"
BROKEN = sorted(FOLDER.glob("*.yaml"))


def expected(path: Path) -> list[tuple[int, str]]:
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    return [(number, fault.strip()) for number, line in lines for fault in line.split("# fault:")[1:]]


def test_there_are_25_and_each_says_what_is_wrong_with_it():
    assert len(BROKEN) >= 25
    assert all(expected(path) for path in BROKEN)


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_every_fault_is_told_with_its_line(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(FOLDER.parent)  # a relative path must not be put before the data's own twice
    with pytest.raises(StudyError) as caught:
        load(str(path.relative_to(FOLDER.parent)))
    told = dict.fromkeys(caught.value.faults, False)
    for line, text in expected(path):
        hits = [fault for fault in told if f"{path.name}, line {line}:" in fault and text in fault]
        assert len(hits) == 1, f"line {line}, {text!r} is not among: {list(told)}"
        told[hits[0]] = True
    assert [fault for fault, planted in told.items() if not planted] == [], "faults that nobody planted"


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_nothing_is_written(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["bystander", "run", str(path), "--out", str(tmp_path / "run")])
    before = sorted(FOLDER.rglob("*"))
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert list(tmp_path.iterdir()) == []
    assert sorted(FOLDER.rglob("*")) == before
