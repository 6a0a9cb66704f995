"""What happened in a run and when: an append-only `events.jsonl`, one JSON object a line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bystander.core.files import explained
from bystander.study.store.cell_dir import CELLS_KEPT
from bystander.study.store.records import Event, EventKind


class Events:
    """Appends events to a run's file. A line is written by one `write`, so that lines of two processes do not mix."""

    def __init__(self, path: Path, plan_hash: str) -> None:
        self.path = path
        self.plan_hash = plan_hash

    def write(self, kind: EventKind, **details: object) -> None:
        """Append one event, with the time and the hash of the plan."""
        event = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "plan": self.plan_hash[:16],
            "event": kind,
            **details,
        }
        with explained(self.path, CELLS_KEPT):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(handle, (json.dumps(event, ensure_ascii=False) + "\n").encode())
            finally:
                os.close(handle)


def read_events(path: Path) -> Iterator[Event]:
    """The events of a run, oldest first. A last line that a kill cut short is left out."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8").split("\n"):
        try:
            value: dict[str, Any] = json.loads(line)
        except ValueError:
            continue
        time, plan, kind = datetime.fromisoformat(value.pop("time")), value.pop("plan"), value.pop("event")
        yield Event(time, plan, kind, value)
