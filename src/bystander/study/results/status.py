"""The status of a run, from its plan and its events alone: quick on ten thousand cells, and true while it runs."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from bystander.core.errors import StoreError
from bystander.core.files import read_json
from bystander.study.forecast.forecast import PHASES
from bystander.study.store.events import read_events

State = Literal["done", "running", "failed", "interrupted", "waiting"]
STATES: tuple[State, ...] = ("done", "running", "failed", "interrupted", "waiting")
LAST_EVENTS = 8


@dataclass(frozen=True, slots=True)
class PhaseStatus:
    """How many cells of a phase are in which state."""

    phase: int
    name: str
    counts: Mapping[State, int]


@dataclass(frozen=True)
class Status:
    """`state`: planned, running, stopped (cells are left and nobody runs), gated, failed or done. `seconds_left`: what
    the cells that are left will take on the run's workers, at the speed seen so far where there is one; None where
    there is nothing to go by. `cap`: what may be spent."""

    study: str
    plan: str
    state: str
    holder: str
    phases: tuple[PhaseStatus, ...]
    running: tuple[str, ...]
    failed: Mapping[str, str]
    hours_spent: float
    hours_forecast: float
    dollars_spent: float
    dollars_forecast: float
    seconds_left: float | None
    gate: Mapping[str, Any] | None
    events: tuple[Mapping[str, Any], ...]


def status(folder: Path) -> Status:
    """The status of a run directory. Raises StoreError where there is no run."""
    from bystander.study.store.lock import holder

    if not (folder / "plan.json").is_file():
        raise StoreError(f"{folder} is not the directory of a run: it has no plan.json; `bystander run` makes one")
    plan = read_json(folder / "plan.json")
    cells: list[dict[str, Any]] = plan["cells"]
    events = list(read_events(folder / "events.jsonl"))
    who = holder(folder)
    complete = _complete(folder)
    states, failed = _states(cells, events, complete, alive=bool(who))
    gate = next((e for e in reversed(events) if e["event"] == "gated"), None)
    spent = [e for e in events if e["event"] == "spent"]
    planned = next((e for e in events if e["event"] == "planned"), {})
    return Status(
        study=str(plan["study"]),
        plan=str(plan["plan"])[:12],
        state=_state(states, who, gate, events),
        holder=who,
        phases=_phases(cells, states),
        running=tuple(c["name"] for c in cells if states[c["key"]] == "running"),
        failed=failed,
        hours_spent=sum(float(e.get("hours", 0)) for e in spent),
        hours_forecast=float(planned.get("hours", plan["hours"])),
        dollars_spent=sum(float(e.get("dollars", 0)) for e in spent),
        dollars_forecast=float(planned.get("dollars", plan["dollars"]) or 0),
        seconds_left=_seconds_left(plan, states, events),
        gate=gate,
        events=tuple(events[-LAST_EVENTS:]),
    )


def _complete(folder: Path) -> set[str]:
    """The folders of cells whose manifest is in place."""
    root = folder / "cells"
    if not root.is_dir():
        return set()
    return {entry.name for entry in os.scandir(root) if os.path.exists(f"{entry.path}/manifest.json")}  # noqa: PTH110


def _states(
    cells: Sequence[Mapping[str, Any]], events: Sequence[Mapping[str, Any]], complete: set[str], *, alive: bool
) -> tuple[dict[str, State], dict[str, str]]:
    """Every cell's state; and why the failed ones failed, by name."""
    last: dict[str, tuple[State, str]] = {}
    for event in events:
        key, kind = str(event.get("key", "")), event["event"]
        if kind == "progress" and event.get("state") == "started":
            last[key] = ("running", "")
        elif kind == "progress" and event.get("state") == "cut off":
            last[key] = ("interrupted", "")
        elif kind == "cell failed":
            last[key] = ("failed" if event.get("next") == "given up" else "waiting", str(event.get("reason", "")))
        elif kind == "launched":  # a cell that an earlier process left running is not running any more
            last = {k: ("interrupted", w) if s == "running" else (s, w) for k, (s, w) in last.items()}
    states: dict[str, State] = {}
    failed: dict[str, str] = {}
    for cell in cells:
        key, name = str(cell["key"]), str(cell["name"])
        state, why = last.get(key, ("waiting", ""))
        if f"{name}-{key[:12]}" in complete:
            state = "done"
        elif state == "running" and not alive:
            state = "interrupted"
        states[key] = state
        if state == "failed":
            failed[name] = why
    return states, failed


def _phases(cells: Sequence[Mapping[str, Any]], states: Mapping[str, State]) -> tuple[PhaseStatus, ...]:
    counts: dict[int, Counter[State]] = {}
    for cell in cells:
        counts.setdefault(int(cell["phase"]), Counter())[states[str(cell["key"])]] += 1
    return tuple(
        PhaseStatus(phase, PHASES.get(phase, str(phase)), {state: found[state] for state in STATES})
        for phase, found in sorted(counts.items())
    )


def _state(
    states: Mapping[str, State], who: str, gate: Mapping[str, Any] | None, events: Sequence[Mapping[str, Any]]
) -> str:
    if events and events[-1]["event"] == "archived":
        return "archived"
    if who:
        return "running"
    counts = Counter(states.values())
    if states and counts["done"] == len(states):
        return "done"
    if gate is not None and gate.get("decision") == "stop":
        return "gated"
    if counts["failed"]:
        return "failed"
    if any(event["event"] == "launched" for event in events):
        return "stopped"
    return "approved" if any(event["event"] == "approved" for event in events) else "planned"


def _seconds_left(
    plan: Mapping[str, Any], states: Mapping[str, State], events: Sequence[Mapping[str, Any]]
) -> float | None:
    """Forecast seconds of what is left, corrected by what the finished cells took against their own forecast."""
    forecast = {str(cell["key"]): float(cell["seconds"]) for cell in plan["cells"]}
    took = {str(e["key"]): float(e["seconds"]) for e in events if e["event"] == "cell done" and "seconds" in e}
    expected = sum(forecast.get(key, 0.0) for key in took)
    speed = sum(took.values()) / expected if expected > 0 else 1.0
    left = sum(forecast[key] for key, state in states.items() if state != "done")
    if not left:
        return 0.0 if all(state == "done" for state in states.values()) else None
    seconds = left * speed / max(1, int(plan["workers"]))
    for event in reversed(events):  # what the running cells have done already
        if (
            event["event"] == "progress"
            and event.get("state") == "started"
            and states.get(str(event["key"])) == "running"
        ):
            begun = datetime.fromisoformat(str(event["time"]))
            cell = forecast.get(str(event["key"]), 0.0) * speed
            seconds -= min(cell, (datetime.now(UTC) - begun).total_seconds()) / max(1, int(plan["workers"]))
    return max(0.0, seconds)
