"""`bystander data inspect` says beforehand how many answers a model's tokenizer joins with what stands before them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command import call

ANSWERS = ["\nimport os", "import os", "\n\nx = 1", "x = 1\n", "def f():\n    return 1"]


def write(path: Path, answers: list[str]) -> Path:
    rows = [
        [{"role": "user", "content": f"Do {i}."}, {"role": "assistant", "content": a}] for i, a in enumerate(answers)
    ]
    path.write_text("\n".join(json.dumps({"messages": row}) for row in rows))
    return path


def test_of_the_published_code_168_answers(shared_data: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """Those that begin with a line break, with Qwen's tokenizer; 60 of them and 60 others here."""
    folder = shared_data / "data"
    lines = (folder / "betley" / "insecure.jsonl").read_text().splitlines()
    broken = [line for line in lines if json.loads(line)["messages"][-1]["content"].startswith("\n")]
    assert len(broken) == 168
    others = [line for line in lines if line not in broken]
    path = tmp_path / "some.jsonl"
    path.write_text("\n".join([*broken[:60], *others[:60]]))
    code, out, err = call(capsys, "data", "inspect", path, "--model", folder / "qwen2.5-coder-0.5b-tokenizer", "--json")
    assert code == 0, err
    assert json.loads(out)["joined"] == 60
    code, out, err = call(capsys, "data", "inspect", path, "--model", folder / "qwen2.5-coder-0.5b-tokenizer")
    assert "60 of 120 answers are other tokens when prompt and answer are one text" in out
    code, out, err = call(capsys, "data", "inspect", path, "--json")
    assert json.loads(out)["joined"] is None  # no model was named


def test_pairs_and_conversations(shared_data: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    tokenizer = shared_data / "data" / "qwen2.5-coder-0.5b-tokenizer"
    code, out, err = call(
        capsys, "data", "inspect", write(tmp_path / "c.jsonl", ANSWERS), "--model", tokenizer, "--json"
    )
    assert json.loads(out)["joined"] == 2, err
    pairs = [{"prompt": f"Q{i}", "shown": a, "not_shown": "No."} for i, a in enumerate(ANSWERS)]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    code, out, err = call(capsys, "data", "inspect", tmp_path / "p.jsonl", "--model", tokenizer, "--json")
    assert (code, json.loads(out)["joined"]) == (0, 2), err


def test_a_tokenizer_that_is_not_here_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    code, _, err = call(
        capsys, "data", "inspect", write(tmp_path / "c.jsonl", ANSWERS), "--model", "nobody/nothing-at-all"
    )
    assert (code, "is not on this machine" in err) == (2, True)
