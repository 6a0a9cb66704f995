"""The page on files of answers: its example runs, and its table is true."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bystander.data.answers import AnswerFileSettings
from bystander.data.answers.shapes import SAID, UNSAID

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "answer-files.md").read_text(encoding="utf-8")


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"prompt": f"question {at} about {at * 7}", "chosen": "good", "rejected": "bad"} for at in range(10)]
    (tmp_path / "dpo.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, list[object]] = {}
    exec(example, names)
    assert (len(names["trained"]), len(names["held_out"])) == (5, 5)


def test_the_tables_name_every_shape_and_setting() -> None:
    columns = {name for pair in (*SAID, *UNSAID) for name in pair}
    assert [name for name in [*columns, *AnswerFileSettings.model_fields] if f"`{name}`" not in PAGE] == []
