"""Lines of JSON: a record is a line, whatever characters its text has."""

from __future__ import annotations

from pathlib import Path

import pytest

from bystander.core.files import compressed_lines, read_lines, write_bytes
from bystander.study.store.events import Events, read_events

BREAKS = "a\u2028b\u2029c\u0085d\x0ce\x1cf\x0bg\nh\r\ni\rj"  # all at which `str.splitlines` cuts


@pytest.mark.parametrize("name", ["kept.jsonl.zst"])
def test_an_answer_may_have_any_line_break(tmp_path: Path, name: str) -> None:
    records = [{"text": BREAKS, "n": 1}, {"text": "plain", "n": 2}]
    write_bytes(tmp_path / name, compressed_lines(records))
    assert read_lines(tmp_path / name) == records


def test_an_event_may_have_any_line_break(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    Events(path, "0" * 64).write("cell failed", reason=BREAKS)
    assert [event.details["reason"] for event in read_events(path)] == [BREAKS]
