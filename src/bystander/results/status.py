"""The status of a run, from its plan and its events alone: quick on ten thousand cells, and true while it runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from bystander.core.errors import StoreError
from bystander.study.forecast.learn import learned, seconds_taken
from bystander.study.forecast.order import makespan
from bystander.study.plan.cells import PHASES
from bystander.study.store.cell_dir import cell_folder
from bystander.study.store.lock import holder
from bystander.study.store.records import Event, PlannedCell, SavedPlan, Spent
from bystander.study.store.run_dir import RunDir, spent_in

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
class RunStatus:
    """`state`: planned, running, stopped (cells are left and nobody runs), gated, failed or done. `seconds_left`: what
    the cells that are left will take on the run's workers, at the speed seen so far where there is one; None where
    there is nothing to go by. `gate`: its decision, "" for none."""

    study: str
    plan: str
    state: str
    holder: str
    phases: tuple[PhaseStatus, ...]
    running: tuple[str, ...]
    failed: Mapping[str, str]
    spent: Spent
    forecast: Spent
    seconds_left: float | None
    gate: str
    gate_reason: str
    events: tuple[Event, ...]


def status(run: RunDir) -> RunStatus:
    """The status of a run directory. Raises StoreError where there is no run."""
    plan = run.plan()
    if plan is None:
        raise StoreError(f"{run.path} is not the directory of a run: it has no plan.json; `bystander run` makes one")
    events, who = run.events(), holder(run)
    states, failed = _states(plan.cells, events, run.complete_folders(), alive=bool(who))
    gate = next((event.details for event in reversed(events) if event.kind == "gated"), {})
    planned = next((event.details for event in events if event.kind == "planned"), {})
    return RunStatus(
        study=plan.study,
        plan=plan.hash[:12],
        state=_state(states, who, str(gate.get("decision", "")), events),
        holder=who,
        phases=_phases(plan.cells, states),
        running=tuple(cell.name for cell in plan.cells if states[cell.key] == "running"),
        failed=failed,
        spent=spent_in(events),
        forecast=Spent(float(planned.get("hours", plan.hours)), float(planned.get("dollars", plan.dollars) or 0)),
        seconds_left=_seconds_left(plan, states, events),
        gate=str(gate.get("decision", "")),
        gate_reason=str(gate.get("reason", "")),
        events=tuple(events[-LAST_EVENTS:]),
    )


def _states(
    cells: Sequence[PlannedCell], events: Sequence[Event], complete: set[str], *, alive: bool
) -> tuple[dict[str, State], dict[str, str]]:
    """Every cell's state; and why the failed ones failed, by name."""
    last: dict[str, tuple[State, str]] = {}
    for event in events:
        if event.started:
            last[event.key] = ("running", "")
        elif event.cut_off:
            last[event.key] = ("interrupted", "")
        elif event.kind == "cell failed":
            given_up = event.details.get("next") == "given up"
            last[event.key] = ("failed" if given_up else "waiting", str(event.details.get("reason", "")))
        elif event.kind == "launched":  # a cell that an earlier process left running is not running any more
            last = {k: ("interrupted", w) if s == "running" else (s, w) for k, (s, w) in last.items()}
    states: dict[str, State] = {}
    failed: dict[str, str] = {}
    for cell in cells:
        state, why = last.get(cell.key, ("waiting", ""))
        if cell_folder(cell.name, cell.key) in complete:
            state = "done"
        elif state == "running" and not alive:
            state = "interrupted"
        states[cell.key] = state
        if state == "failed":
            failed[cell.name] = why
    return states, failed


def _phases(cells: Sequence[PlannedCell], states: Mapping[str, State]) -> tuple[PhaseStatus, ...]:
    counts: dict[int, Counter[State]] = {}
    for cell in cells:
        counts.setdefault(cell.phase, Counter())[states[cell.key]] += 1
    return tuple(
        PhaseStatus(phase, PHASES.get(phase, str(phase)), {state: found[state] for state in STATES})
        for phase, found in sorted(counts.items())
    )


def _state(states: Mapping[str, State], who: str, gate: str, events: Sequence[Event]) -> str:
    if events and events[-1].kind == "archived":
        return "archived"
    if who:
        return "running"
    counts = Counter(states.values())
    if states and counts["done"] == len(states):
        return "done"
    if gate == "stop":
        return "gated"
    if counts["failed"]:
        return "failed"
    kinds = {event.kind for event in events}
    return "stopped" if "launched" in kinds else "approved" if "approved" in kinds else "planned"


def _seconds_left(plan: SavedPlan, states: Mapping[str, State], events: Sequence[Event]) -> float | None:
    """Until the last cell is done: the scheduler's own order on the run's workers, each cell at the speed that the
    finished ones of its sort have shown."""
    now = datetime.now(UTC)
    begun = {e.key: (now - e.time).total_seconds() for e in events if e.started and states.get(e.key) == "running"}
    left = [cell for cell in plan.cells if states[cell.key] != "done"]
    if not any(cell.seconds for cell in left):
        return None if left else 0.0
    return time_left(left, plan, seconds_taken(events), begun)


def time_left(
    left: Sequence[PlannedCell], plan: SavedPlan, took: Mapping[str, float], begun: Mapping[str, float]
) -> float:  # fmt: skip
    """Seconds until all of `left` is done; `took`: what finished cells took, by key; `begun`: for how long those under
    way have run."""
    speeds = learned(plan.cells, took)
    seconds = {cell.key: cell.seconds * speeds.of(cell.sort or cell.kind, cell.kind) for cell in left}
    # One that has run longer than was forecast has, for all that is known, as long to go again as a short one.
    seconds |= {key: max(seconds[key] - ran, 0.1 * seconds[key]) for key, ran in begun.items() if key in seconds}
    gate = next((cell.key for cell in plan.cells if cell.kind == "gate"), None)
    return makespan(left, seconds, max(1, plan.workers), gate, set(begun))
