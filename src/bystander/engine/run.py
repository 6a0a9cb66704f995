"""Running a study: clarified, planned, approved, checked, launched; phase by phase; then the tables.

Running again does only what is not complete. Whatever is complete stays so on every error, stop and kill.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from bystander.core import doors
from bystander.core.errors import StudyError
from bystander.core.progress import Bar, Silent
from bystander.core.records import Finding
from bystander.design.audit import refuse
from bystander.engine.budget import BudgetTracker, approve, unpaid
from bystander.engine.collect import bring_up_to_date
from bystander.engine.executor import Attempt, CellRunner, Executor, Outcome
from bystander.engine.own_answers import cut_findings, filled
from bystander.engine.preflight import passed, preflight, refuse_failed
from bystander.engine.runners import local_runner, remote_runner
from bystander.engine.scheduler import ScheduleSummary, in_order, schedule
from bystander.engine.shutdown import SIGNALS, Stop
from bystander.engine.together import trainings_together
from bystander.engine.track import mirrored
from bystander.study.config.blocks import Budget
from bystander.study.config.study import ResolvedStudy
from bystander.study.forecast.assess import forecast_of, review_of
from bystander.study.forecast.forecast import Forecast
from bystander.study.forecast.open_settings import open_settings, refuse_open
from bystander.study.forecast.order import Ordered, Priority, priorities
from bystander.study.forecast.review import Review
from bystander.study.plan.audit import audit_study
from bystander.study.plan.cells import Cell, Plan, plan_cells
from bystander.study.plan.preregistration import freeze
from bystander.study.store.events import Events
from bystander.study.store.lock import check_same_study, claimed
from bystander.study.store.records import Event, GateState, PlannedCell, SavedPlan, Spent
from bystander.study.store.run_dir import RunDir, spent_in

MakeRunner = Callable[[Plan, RunDir, Bar], CellRunner]


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What a run did: its folder, how many cells it did now and found complete, which failed and why (by name), how
    many are left and why (`stopped`; "" where nothing is), and where the gate stands."""

    folder: Path
    done_now: int
    found: int
    findings: tuple[Finding, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict[str, str])
    left: int = 0
    stopped: str = ""
    gate: str = ""
    gate_reason: str = ""

    @property
    def was_stopped(self) -> bool:
        """Whether somebody asked it to stop: tables and report are then the next run's, or `bystander report`'s."""
        return self.stopped in SIGNALS


@dataclass(frozen=True, slots=True)
class RunOptions:
    """The hash of the plan that the user approves, and why a stop (of the review or of the gate) is overridden."""

    approve: str = ""
    override: str = ""


def run_study(
    study: ResolvedStudy, folder: Path, bar: Bar | None = None, options: RunOptions = RunOptions(),
    make_runner: MakeRunner | None = None,
) -> RunSummary:  # fmt: skip
    """Run a study into `folder`. Raises StudyError while a blocking setting is open, the review says STOP or the budget
    is too small, DesignError if the audit refuses it, StoreError if the folder is another study's or another process's."""
    run = RunDir(folder)
    refuse_open(open_settings(study))
    check_same_study(run, study)
    undecided = plan_cells(study)
    gate = run.gate()
    plan = undecided if gate.found is None else undecided.after_gate(gate.found.picks)
    forecast, before = forecast_of(plan, run), run.events()
    already = spent_in(before)
    approved = _approval(forecast, study.spec.budget, options, undecided.hash, already, before)
    reviewed = _review_once(study, plan, forecast, options, undecided.hash, before)
    stopped = gate.found is not None and gate.found.decision == "stop"
    if options.override and not stopped and (reviewed is None or reviewed.verdict != "STOP"):
        raise StudyError(
            "--override: neither the review nor the gate of this run says stop; there is nothing to override"
        )
    with claimed(run, study) as dead:
        if options.override and stopped:
            run.override_gate(options.override)
        process = _Run(
            study, run, bar or Silent(), Events(run.events_file, undecided.hash),
            BudgetTracker(study.spec.budget, already, approved),
        )  # fmt: skip
        process.prepare(plan, forecast, reviewed, before, dead, options)
        findings = [*audit_study(filled(plan, run), run), *cut_findings(plan, run)]
        refuse(findings)
        freeze(study, run)
        with mirrored(study.spec.track, run.path) as untold:
            summary = process.go(plan, forecast, make_runner)
        return replace(summary, findings=(*findings, *run.mode_findings(), *untold))


def _approval(
    forecast: Forecast, budget: Budget, options: RunOptions, digest: str, already: Spent, before: Sequence[Event]
) -> Spent | None:
    """The approval that holds: an earlier one of this very plan, or the one given now, if one is needed."""
    for event in reversed(before):
        if event.kind == "approved" and event.plan == digest[:16] and event.details.get("cap_hours") is not None:
            return Spent(float(event.details["cap_hours"]), float(event.details["cap_dollars"]))
    return approve(options.approve, digest, Spent(forecast.hours, forecast.dollars), budget, already)


def _review_once(
    study: ResolvedStudy, plan: Plan, forecast: Forecast, options: RunOptions, digest: str, before: Sequence[Event]
) -> Review | None:
    """The review of a plan that this directory has not seen; None where it has. Raises StudyError where it says STOP and
    nobody overrides that."""
    if any(event.kind == "reviewed" and event.plan == digest[:16] for event in before):
        return None
    found = review_of(study, plan, forecast)
    if found.verdict == "STOP" and not options.override.strip():
        raise StudyError(
            f"the review says STOP ({found.score:.1f} of 5). Change the study, or give --override REASON:",
            found.changes,
        )
    return found


class _Run:
    """One process's run of a study. Writes down what the scheduler tells."""

    def __init__(self, study: ResolvedStudy, run: RunDir, bar: Bar, events: Events, budget: BudgetTracker) -> None:
        self.study, self.run, self.bar, self.events, self.budget = study, run, bar, events, budget
        self.stop = Stop(asked=self.run.ask_to_stop)
        self.share = 1.0  # of a device, that one attempt holds; the executor says

    def prepare(
        self, plan: Plan, forecast: Forecast, reviewed: Review | None, before: Sequence[Event], dead: str,
        options: RunOptions,
    ) -> None:  # fmt: skip
        """Everything between asking and launching, each with its event."""
        kinds = {event.kind for event in before if event.plan == self.events.plan_hash[:16]}
        if reviewed is not None:
            self._plan_once(plan, forecast, reviewed, options)
        if self.budget.approved is not None and "approved" not in kinds:
            cap = self.budget.cap
            self.events.write("approved", cap_hours=cap.hours, cap_dollars=cap.dollars, given=options.approve)
        for key, seconds in unpaid(before, self.run):
            self.events.write("spent", key=key, hours=seconds / 3600, dollars=0.0, note="cut off by a kill")
            self.budget.pay(seconds / 3600, 0.0)
        self.budget.forecasts = forecast.device_hours
        self.write_plan(plan, forecast)
        if forecast.todo:
            checks = preflight(plan, self.run, forecast)
            self.events.write("preflight", ok=passed(checks), checks={c.name: c.message for c in checks})
            refuse_failed(checks)
        took = {"took_over_from": dead} if dead else {}
        self.events.write("launched", cells=len(plan.cells), todo=len(forecast.todo), pid=os.getpid(), **took)

    def _plan_once(self, plan: Plan, forecast: Forecast, review: Review, options: RunOptions) -> None:
        answers = {one.id: one.default for one in open_settings(self.study)}
        self.events.write("clarified", defaults=answers)
        self.events.write("planned", cells=len(plan.cells), hours=forecast.hours, dollars=forecast.dollars)
        why = {"override": options.override} if review.verdict == "STOP" else {}
        self.events.write("reviewed", score=review.score, verdict=review.verdict, **why)

    def write_plan(self, plan: Plan, forecast: Forecast) -> None:
        """What `status` reads: it must answer at once, and so must not plan anew."""
        costs = {cost.key: cost.published for cost in forecast.cells}
        cells = tuple(
            PlannedCell(
                c.key, c.name, c.kind, c.phase, costs.get(c.key, 0.0), c.needs, c.sort, plan.replaced_by(c)
            )
            for c in plan.cells
        )  # fmt: skip
        dollars = None if math.isnan(forecast.dollars) else forecast.dollars
        self.run.save_plan(
            SavedPlan(
                self.events.plan_hash, self.study.spec.name, plan.assumed, forecast.hours, dollars, forecast.workers,
                forecast.rates.source, cells,
            )
        )  # fmt: skip

    def go(self, plan: Plan, forecast: Forecast, make_runner: MakeRunner | None) -> RunSummary:
        """Schedule what is not complete, up to the gate and after it; then put the tables together, unless a stop was
        asked for: they are then made by the next run, or by `bystander report`."""
        self.plan, self.paid, self.forecast = plan, _dollars_paid(plan), forecast
        found = len(plan.cells) - len(forecast.todo)
        cells = self._cells()
        summary = ScheduleSummary()
        executor: Executor | None = None
        self.run.stop_file.unlink(missing_ok=True)
        try:
            with self.stop.on_signals():
                if self._todo(cells):
                    executor = self._executor(plan, make_runner)
                    summary = self._schedule(cells, executor)
        finally:
            if executor is not None:
                executor.close()
            self.run.stop_file.unlink(missing_ok=True)
            if not self.stop.requested:
                bring_up_to_date(self.run)
        plan, gate = self.plan, self._gate(self.plan)
        failed = {plan.by_key[key].name: why.message for key, why in summary.failed.items() if key in plan.by_key}
        left = len(self._todo(plan.cells)) if gate.decision != "stop" else 0
        return RunSummary(
            self.run.path, len(summary.done), found, (), failed, left, summary.stopped, gate.decision, gate.reason
        )

    def _cells(self) -> Sequence[Cell]:
        """What may run as the gate stands now; once it is open, by what it picked."""
        gate = self._gate(self.plan)
        if gate.open:
            self.plan = self._replan(self.plan, gate)
        if self.plan.gate is None or gate.open:
            return self.plan.cells
        return self.plan.before_gate() if gate.decision == "stop" else self.plan.without_gate()

    def _after(self, key: str) -> tuple[Sequence[Cell], set[str]] | None:
        """What the plan has become with a cell: another with the gate's."""
        if self.plan.gate is None or key != self.plan.gate.key:
            return None
        cells = self._cells()
        return cells, self._complete(cells)

    def _complete(self, cells: Sequence[Cell]) -> set[str]:
        folders = self.run.complete_folders()
        return {cell.key for cell in cells if cell.folder in folders}

    def _schedule(self, cells: Sequence[Cell], executor: Executor) -> ScheduleSummary:
        return schedule(
            cells, self._complete(cells), executor, self, self.stop,
            may_spend=self.budget.may_spend, retries=self.study.spec.executor.retries,
            turns=in_order if executor.slots == 1 else self._turns,
            together=trainings_together(self.study.spec, executor, lambda: self.plan), then=self._after,
        )  # fmt: skip

    def _turns(self, cells: Sequence[Ordered]) -> Mapping[str, Priority]:
        seconds = {cost.key: cost.seconds for cost in self.forecast.cells}
        return priorities(cells, seconds, self.plan.gate.key if self.plan.gate else None)

    def _replan(self, plan: Plan, gate: GateState) -> Plan:
        """The plan with what the gate picked, written down for `status`."""
        if not plan.assumed or gate.found is None:
            return plan
        plan = plan.after_gate(gate.found.picks)
        self.forecast = forecast = forecast_of(plan, self.run)
        self.budget.forecasts = forecast.device_hours
        self.write_plan(plan, forecast)
        return plan

    def _gate(self, plan: Plan) -> GateState:
        """Where the gate stands; whenever it has come to stand otherwise, that is an event."""
        state = self.run.gate() if plan.gate else GateState("", "", None)
        if state.found is not None:
            earlier = [event for event in self.run.events() if event.kind == "gated"]
            if not earlier or earlier[-1].details.get("decision") != state.decision:
                self.events.write("gated", decision=state.decision, reason=state.reason, picks=dict(state.found.picks))
        return state

    def _executor(self, plan: Plan, make_runner: MakeRunner | None) -> Executor:
        block = self.study.spec.executor
        kind = doors.load("executor", block.kind)
        if kind.in_process:
            make: Callable[[], CellRunner] = partial(make_runner or local_runner, plan, self.run, self.bar)
        else:
            make = partial(remote_runner, self.study, self.run.path.resolve())
        executor: Executor = kind(block, make)
        self.share = executor.share
        return executor

    def _todo(self, cells: Sequence[Cell]) -> list[Cell]:
        folders = self.run.complete_folders()
        return [cell for cell in cells if cell.folder not in folders]

    # What the scheduler says.

    def started(self, attempt: Attempt) -> None:
        """An event, so that `status` knows what runs."""
        again = {"attempt": attempt.number} if attempt.number > 1 else {}
        self.events.write("progress", state="started", cell=attempt.name, key=attempt.key, **again)

    def done(self, outcome: Outcome) -> None:
        """The cell's event and what it cost."""
        attempt = outcome.attempt
        start = {"start": round(outcome.start, 3)} if outcome.start else {}
        self.events.write("cell done", cell=attempt.name, key=attempt.key, seconds=round(outcome.seconds, 3), **start)
        self._pay(attempt, outcome.seconds)

    def failed(self, outcome: Outcome, again: str) -> None:
        """Why, and what comes next."""
        assert outcome.failure is not None
        attempt, why = outcome.attempt, outcome.failure
        next_ = again or "given up"
        self.events.write(
            "cell failed", cell=attempt.name, key=attempt.key, reason=why.message, error=why.kind, next=next_
        )
        self._pay(attempt, outcome.seconds)

    def cut_off(self, attempt: Attempt, seconds: float) -> None:
        """What it kept is resumed by the next run; its time is paid."""
        self.events.write("progress", state="cut off", cell=attempt.name, key=attempt.key)
        self._pay(attempt, seconds)

    def _pay(self, attempt: Attempt, seconds: float) -> None:
        paid = _dollars_paid(self.plan)
        dollars, self.paid = paid - self.paid, paid
        hours = seconds * self.share / 3600
        self.budget.pay(hours, dollars)
        total = self.budget.spent
        self.events.write(
            "spent",
            key=attempt.key,
            hours=hours,
            dollars=dollars,
            total_hours=total.hours,
            total_dollars=total.dollars,
        )


def _dollars_paid(plan: Plan) -> float:
    """What the study's probes have paid to services so far, over all runs."""
    return sum((probe.dollars_paid() for probe in plan.probes.values()), 0.0)
