"""What happened in a run, in words: one sentence an event, for `status` and the live page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bystander.study.store.records import Event


def in_words(event: Event) -> str:
    """The event as a sentence without its time. What it cannot place it names with its details, so that none is lost."""
    told = event.details
    match event.kind:
        case "clarified":
            return f"open settings took their defaults: {_pairs(told.get('defaults'))}"
        case "planned":
            cells, time = _count(told, "cells", "cell"), _time(told, "hours", 3600)
            return f"planned {cells}, {time} of device time{_dollars(told)} by forecast"
        case "reviewed":
            went = f"; gone on with all the same: {told['override']}" if told.get("override") else ""
            return f"the plan's review says {told.get('verdict')}, {told.get('score')} of 5{went}"
        case "approved":
            return f"approved up to {_time(told, 'cap_hours', 3600)} of device time" + _dollars(told, "cap_dollars")
        case "preflight":
            return "everything that would stop it was checked: " + (
                "nothing does" if told.get("ok") else "something does"
            )
        case "launched":
            over = f", taken over from process {told['took_over_from']}" if told.get("took_over_from") else ""
            return f"started: {told.get('todo')} of {_count(told, 'cells', 'cell')} to do{over}"
        case "progress":
            return _progress(told)
        case "cell done":
            return f"finished {told.get('cell')} in {_time(told, 'seconds')}"
        case "cell failed":
            return f"failed: {told.get('cell')}: {told.get('reason')}; next: {told.get('next')}"
        case "gated":
            return f"the gate says {told.get('decision')}: {told.get('reason')}"
        case "spent":
            after = f", {_time(told, 'total_hours', 3600)} in all" if "total_hours" in told else ""
            return f"paid {_time(told, 'hours', 3600)} of device time{_dollars(told)}{after}{_note(told)}"
        case "reported":
            return f"the report was written: {told.get('path')}"
        case "archived":
            return "archived"


def _progress(told: Mapping[str, Any]) -> str:
    cell = told.get("cell")
    if told.get("state") == "started":
        again = f", attempt {told['attempt']}" if told.get("attempt") else ""
        return f"began {cell}{again}"
    if told.get("state") == "cut off":
        return f"cut off {cell}: what it had done is kept"
    return f"{cell}: {_pairs(told)}"


def _count(told: Mapping[str, Any], name: str, one: str) -> str:
    number = told.get(name, 0)
    return f"{number} {one}" + ("" if number == 1 else "s")


def _time(told: Mapping[str, Any], name: str, unit: float = 1.0) -> str:
    """Seconds, minutes or hours for a person; `unit`: how many seconds the number counts in."""
    seconds = float(told.get(name) or 0.0) * unit
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 1 or not seconds else "under 1 s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _dollars(told: Mapping[str, Any], name: str = "dollars") -> str:
    dollars = told.get(name)
    return f" and ${float(dollars):.2f}" if dollars else ""


def _note(told: Mapping[str, Any]) -> str:
    return f" ({told['note']})" if told.get("note") else ""


def _pairs(value: object) -> str:
    if not isinstance(value, Mapping):
        return str(value)
    return "; ".join(f"{key}: {inner}" for key, inner in value.items())
