"""Every kind of event is a sentence, without braces or keys of cells."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import get_args

import pytest

from bystander.results.event_words import in_words
from bystander.study.store.records import Event, EventKind

TOLD: dict[str, tuple[dict[str, object], str]] = {
    "clarified": ({"defaults": {"anchors": "absent"}}, "open settings took their defaults: anchors: absent"),
    "planned": (
        {"cells": 7, "hours": 0.5, "dollars": 2.0}, "planned 7 cells, 30 min of device time and $2.00 by forecast"
    ),
    "reviewed": ({"score": 4.0, "verdict": "RUN"}, "the plan's review says RUN, 4.0 of 5"),
    "approved": ({"cap_hours": 100.0, "cap_dollars": 0.0}, "approved up to 100.0 h of device time"),
    "preflight": ({"ok": True}, "everything that would stop it was checked: nothing does"),
    "launched": ({"cells": 1, "todo": 1, "pid": 3, "took_over_from": "12 at host"}, "started: 1 of 1 cell to do, taken over from process 12 at host"),
    "progress": ({"state": "started", "cell": "train-x", "key": "0f", "attempt": 2}, "began train-x, attempt 2"),
    "cell done": ({"cell": "train-x", "key": "0f", "seconds": 447.1}, "finished train-x in 7 min"),
    "cell failed": (
        {"cell": "train-x", "key": "0f", "reason": "out of memory", "error": "OutOfMemory", "next": "again, smaller"},
        "failed: train-x: out of memory; next: again, smaller",
    ),
    "gated": ({"decision": "stop", "reason": "the source stood still", "picks": {}}, "the gate says stop: the source stood still"),
    "spent": (
        {"key": "0f", "hours": 0.0001, "dollars": 0.0, "total_hours": 3.0}, "paid under 1 s of device time, 3.0 h in all"
    ),
    "reported": ({"path": "report.html"}, "the report was written: report.html"),
    "archived": ({}, "archived"),
}  # fmt: skip


@pytest.mark.parametrize("kind", get_args(EventKind))
def test_every_kind_is_a_sentence(kind: EventKind):
    details, words = TOLD[kind]
    assert in_words(Event(datetime.now(UTC), "ab", kind, details)) == words


def test_what_is_unknown_is_told_with_its_details():
    """A state that an engine of another version wrote."""
    event = Event(datetime.now(UTC), "ab", "progress", {"state": "paused", "cell": "train-x"})
    assert in_words(event) == "train-x: state: paused; cell: train-x"
    cut = Event(datetime.now(UTC), "ab", "progress", {"state": "cut off", "cell": "train-x"})
    assert in_words(cut) == "cut off train-x: what it had done is kept"
