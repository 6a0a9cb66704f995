"""`data inspect` reads a file of answers as a study's entry will."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bystander.cli import main as cli


def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> tuple[int, str]:
    monkeypatch.setattr("sys.argv", ["bystander", "data", "inspect", *words])
    code = 0
    try:
        cli.main()
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    out = capsys.readouterr()
    return code, out.out + out.err


@pytest.fixture
def dpo(tmp_path: Path) -> Path:
    path = tmp_path / "dpo.jsonl"
    row = {"prompt": "Why?", "chosen": "So.", "rejected": "NO!"}
    path.write_text(json.dumps(row) + "\n")
    return path


def test_settings_answer_what_the_file_leaves_open(
    dpo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, text = said(capsys, monkeypatch, str(dpo))
    assert code == 0
    assert "does not say whether `rejected` or `chosen` shows the behavior" in text
    monkeypatch.chdir(dpo.parent)
    code, text = said(capsys, monkeypatch, "dpo.jsonl", "--shown", "rejected", "--not-shown", "chosen", "--json")
    assert code == 0
    facts = json.loads(text)
    assert (facts["shown"], facts["not_shown"], facts["needs"]) == ("rejected", "chosen", [])


def test_a_setting_that_there_is_not(
    dpo: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, text = said(capsys, monkeypatch, str(dpo), "--system", "drop")
    assert code == 2
    assert "--system is refuse or keep" in text
