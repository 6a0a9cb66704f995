"""Running a study: clarified, planned, approved, checked, launched; phase by phase; then the tables.

Running again does only what is not complete. Whatever is complete stays so on every error, stop and kill.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from bystander.core.errors import StudyError
from bystander.core.files import write_json
from bystander.core.hashing import stable_hash
from bystander.core.progress import Bar, Silent
from bystander.core.records import Finding
from bystander.design.audit import refuse
from bystander.study.config.blocks import Budget
from bystander.study.config.study import Loaded
from bystander.study.engine.budget import Purse, Spent, approve, spent_so_far, unpaid
from bystander.study.engine.collect import collect
from bystander.study.engine.executor_local import CellRunner, Local
from bystander.study.engine.gate import overridden, override, picks_of
from bystander.study.engine.preflight import preflight, refuse_failed
from bystander.study.engine.scheduler import Attempt, Executor, Outcome, Summary, schedule
from bystander.study.engine.shutdown import Stop
from bystander.study.forecast.assess import forecast_of, review_of
from bystander.study.forecast.forecast import Forecast
from bystander.study.forecast.open_settings import open_questions, refuse_open
from bystander.study.forecast.review import Review
from bystander.study.plan.audit import audit_study
from bystander.study.plan.cells import Cell, Plan, plan_cells
from bystander.study.plan.preregistration import freeze
from bystander.study.results.run_records import gate_manifest, instrument_findings
from bystander.study.store.cell_dir import CellDir
from bystander.study.store.events import Events, read_events
from bystander.study.store.lock import check_same_study, claimed

MakeRunner = Callable[[Plan, Path, Bar], CellRunner]


@dataclass(frozen=True, slots=True)
class Ran:
    """What a run did: its folder, how many cells it did now and found complete, which failed and why (by name), how
    many are left and why (`stopped`; "" where nothing is), and the gate's decision ("" where there is no gate)."""

    folder: Path
    done_now: int
    found: int
    findings: tuple[Finding, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict[str, str])
    left: int = 0
    stopped: str = ""
    gate: str = ""
    gate_reason: str = ""


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user says beyond the study: the hash of the plan that is approved, and why a stop (of the review or of the
    gate) is overridden."""

    approve: str = ""
    override: str = ""


def run_study(
    study: Loaded, folder: Path, bar: Bar | None = None, wish: Wish = Wish(), make_runner: MakeRunner | None = None
) -> Ran:  # fmt: skip
    """Run a study into `folder`. Raises StudyError while a blocking question is open, the review says STOP or the budget
    is too small, DesignError if the audit refuses it, StoreError if the folder is another study's or another process's."""
    refuse_open(open_questions(study))
    check_same_study(folder, study)
    plan = plan_cells(study)
    digest = plan_hash(plan)
    decided = picks_of(plan, folder)
    plan = plan if decided is None else plan_cells(study, decided)
    forecast = forecast_of(plan, folder)
    before = list(read_events(folder / "events.jsonl"))
    already = spent_so_far(before)
    approved = _approval(forecast, study.spec.budget, wish, digest, already, before)
    reviewed = _review_once(study, plan, forecast, wish, digest, before)
    stopped = (gate_manifest(folder) or {}).get("decision") == "stop"
    if wish.override and not stopped and (reviewed is None or reviewed.verdict != "STOP"):
        raise StudyError(
            "--override: neither the review nor the gate of this run says stop; there is nothing to override"
        )
    with claimed(folder, study) as dead:
        if wish.override and stopped:
            override(folder, wish.override)
        run = _Run(
            study, folder, bar or Silent(), Events(folder / "events.jsonl", digest), Purse(study.spec.budget, already)
        )
        run.purse.approved = approved
        run.prepare(plan, forecast, reviewed, before, dead, wish)
        findings = audit_study(plan, folder)
        refuse(findings)
        freeze(study, folder)
        ran = run.go(plan, forecast, make_runner)
        return replace(ran, findings=(*findings, *instrument_findings(folder)))


def _approval(
    forecast: Forecast, budget: Budget, wish: Wish, digest: str, already: Spent, before: Sequence[Mapping[str, Any]]
) -> Spent | None:
    """The approval that holds: an earlier one of this very plan, or the one given now, if one is needed."""
    for event in reversed(before):
        if event["event"] == "approved" and event.get("plan") == digest[:16] and event.get("cap_hours") is not None:
            return Spent(float(event["cap_hours"]), float(event["cap_dollars"]))
    return approve(wish.approve, digest, Spent(forecast.hours, forecast.dollars), budget, already)


def _review_once(
    study: Loaded, plan: Plan, forecast: Forecast, wish: Wish, digest: str, before: Sequence[Mapping[str, Any]]
) -> Review | None:
    """The review of a plan that this directory has not seen; None where it has. Raises StudyError where it says STOP and
    nobody overrides that."""
    if any(event["event"] == "reviewed" and event.get("plan") == digest[:16] for event in before):
        return None
    found = review_of(study, plan, forecast)
    if found.verdict == "STOP" and not wish.override.strip():
        raise StudyError(
            f"the review says STOP ({found.score:.1f} of 5). Change the study, or give --override REASON:",
            found.changes,
        )
    return found


def plan_hash(plan: Plan) -> str:
    """Hash of the study, of its budget and of every cell's key, before the gate has decided: the same all through the
    run."""
    return stable_hash(
        plan.study.identity, plan.study.spec.budget.model_dump(), sorted(cell.key for cell in plan.cells)
    )


class _Run:
    """One process's run of a study. Writes down what the scheduler tells."""

    def __init__(self, study: Loaded, folder: Path, bar: Bar, events: Events, purse: Purse) -> None:
        self.study, self.folder, self.bar, self.events, self.purse = study, folder, bar, events, purse
        self.stop = Stop()
        self.share = 1.0  # of a device, that one attempt holds; the executor says

    def prepare(
        self, plan: Plan, forecast: Forecast, reviewed: Review | None, before: Sequence[Mapping[str, Any]], dead: str,
        wish: Wish,
    ) -> None:  # fmt: skip
        """Everything between asking and launching, each with its event."""
        kinds = {event["event"] for event in before if event.get("plan") == self.events.plan_hash[:16]}
        if reviewed is not None:
            self._plan_once(plan, forecast, reviewed, wish)
        if self.purse.approved is not None and "approved" not in kinds:
            cap = self.purse.cap
            self.events.write("approved", cap_hours=cap.hours, cap_dollars=cap.dollars, given=wish.approve)
        for key, seconds in unpaid(before, self.folder):
            self.events.write("spent", key=key, hours=seconds / 3600, dollars=0.0, note="cut off by a kill")
            self.purse.pay(seconds / 3600, 0.0)
        self.purse.forecasts = {cost.key: cost.seconds / 3600 for cost in forecast.cells}
        self.write_plan(plan, forecast)
        if forecast.todo:
            checks = preflight(self.study, self.folder, forecast)
            self.events.write("preflight", ok=all(c.ok for c in checks), checks={c.name: c.message for c in checks})
            refuse_failed(checks)
        took = {"took_over_from": dead} if dead else {}
        self.events.write("launched", cells=len(plan.cells), todo=len(forecast.todo), pid=os.getpid(), **took)

    def _plan_once(self, plan: Plan, forecast: Forecast, review: Review, wish: Wish) -> None:
        answers = {question.id: question.default for question in open_questions(self.study)}
        self.events.write("clarified", defaults=answers)
        self.events.write("planned", cells=len(plan.cells), hours=forecast.hours, dollars=forecast.dollars)
        why = {"override": wish.override} if review.verdict == "STOP" else {}
        self.events.write("reviewed", score=review.score, verdict=review.verdict, **why)

    def write_plan(self, plan: Plan, forecast: Forecast) -> None:
        """What `status` reads: it must answer at once, and so must not plan anew."""
        costs = {cost.key: cost.seconds for cost in forecast.cells}
        cells = [
            {"key": c.key, "name": c.name, "kind": c.kind, "phase": c.phase, "seconds": costs.get(c.key, 0.0)}
            for c in plan.cells
        ]
        value = {
            "plan": self.events.plan_hash, "study": self.study.spec.name, "assumed": plan.assumed, "hours": forecast.hours,
            "dollars": forecast.dollars, "workers": forecast.workers, "rates": forecast.rates.source, "cells": cells,
        }  # fmt: skip
        write_json(self.folder / "plan.json", value)

    def go(self, plan: Plan, forecast: Forecast, make_runner: MakeRunner | None) -> Ran:
        """Schedule what is not complete, up to the gate and behind it; then put the tables together."""
        self.plan, self.paid = plan, self._judge_paid(plan)
        gate, reason = self._decision(plan)
        found = len(plan.cells) - len(forecast.todo)
        summary = Summary()
        executor: Executor | None = None
        try:
            with self.stop.on_signals():
                if self._todo(plan.before_gate()):
                    executor = self._executor(plan, make_runner)
                    summary = self._schedule(plan.before_gate(), executor)
                    gate, reason = self._decision(plan)
                if plan.gate and gate in ("go", "overridden") and not summary.stopped:
                    plan = self._replan(plan)
                    if self._todo(plan.cells):
                        executor = executor or self._executor(plan, make_runner)
                        summary = _joined(summary, self._schedule(plan.cells, executor))
        finally:
            if executor is not None:
                executor.close()
            if summary.done or not (self.folder / "measurements.parquet").is_file():
                collect(plan, self.folder)
        failed = {plan.by_key[key].name: why.message for key, why in summary.failed.items() if key in plan.by_key}
        left = len(self._todo(plan.cells)) if gate != "stop" else 0
        return Ran(self.folder, len(summary.done), found, (), failed, left, summary.stopped, gate, reason)

    def _schedule(self, cells: Sequence[Cell], executor: Executor) -> Summary:
        done = [cell.key for cell in cells if self._dir(cell).complete]
        return schedule(
            cells, done, executor, self, self.stop,
            may_spend=self.purse.may_spend, retries=self.study.spec.executor.retries,
        )  # fmt: skip

    def _replan(self, plan: Plan) -> Plan:
        """The plan with what the gate picked, written down for `status`."""
        picks = picks_of(plan, self.folder)
        if not plan.assumed or picks is None:
            return plan
        plan = plan_cells(self.study, picks)
        forecast = forecast_of(plan, self.folder)
        self.purse.forecasts = {cost.key: cost.seconds / 3600 for cost in forecast.cells}
        self.write_plan(plan, forecast)
        return plan

    def _decision(self, plan: Plan) -> tuple[str, str]:
        """go, stop or overridden, with the reason; ("", "") while there is none. The first time it is an event."""
        if plan.gate is None or not self._dir(plan.gate).complete:
            return "", ""
        found: dict[str, Any] = self._dir(plan.gate).manifest()["gate"]
        decision, reason = str(found["decision"]), str(found["reason"])
        why = overridden(self.folder)
        if decision == "stop" and why and found["picks"]:
            decision, reason = "overridden", f"{reason}; overridden: {why}"
        told = [e for e in read_events(self.events.path) if e["event"] == "gated"]
        if not told or told[-1].get("decision") != decision:
            self.events.write("gated", decision=decision, reason=reason, picks=found["picks"])
        return decision, reason

    def _executor(self, plan: Plan, make_runner: MakeRunner | None) -> Executor:
        executor = self._of_kind(plan, make_runner)
        self.share = executor.share
        return executor

    def _of_kind(self, plan: Plan, make_runner: MakeRunner | None) -> Executor:
        block = self.study.spec.executor
        if block.kind == "ray":
            from bystander.study.engine.executor_ray import OnRay

            return OnRay(block, partial(remote_runner, self.study, self.folder.resolve()))
        if block.kind == "processes":
            from bystander.study.engine.executor_processes import OnProcesses

            return OnProcesses(block, partial(remote_runner, self.study, self.folder.resolve()))
        return Local((make_runner or local_runner)(plan, self.folder, self.bar))

    def _dir(self, cell: Cell) -> CellDir:
        return CellDir(self.folder / "cells" / cell.folder)

    def _todo(self, cells: Sequence[Cell]) -> list[Cell]:
        return [cell for cell in cells if not self._dir(cell).complete]

    # What the scheduler tells.

    def started(self, attempt: Attempt) -> None:
        """An event, so that `status` knows what runs."""
        again = {"attempt": attempt.number} if attempt.number > 1 else {}
        self.events.write("progress", state="started", cell=attempt.name, key=attempt.key, **again)

    def done(self, outcome: Outcome) -> None:
        """The cell's event and what it cost."""
        attempt = outcome.attempt
        self.events.write("cell done", cell=attempt.name, key=attempt.key, seconds=round(outcome.seconds, 3))
        self._pay(attempt, outcome.seconds)

    def failed(self, outcome: Outcome, again: str) -> None:
        """Why, and what comes next."""
        assert outcome.failure is not None
        attempt, why = outcome.attempt, outcome.failure
        self.events.write(
            "cell failed",
            cell=attempt.name,
            key=attempt.key,
            reason=why.message,
            error=why.kind,
            next=again or "given up",
        )
        self._pay(attempt, outcome.seconds)

    def cut_off(self, attempt: Attempt, seconds: float) -> None:
        """What it kept is resumed by the next run; its time is paid."""
        self.events.write("progress", state="cut off", cell=attempt.name, key=attempt.key)
        self._pay(attempt, seconds)

    def _judge_paid(self, plan: Plan) -> float:
        """What the study's judge has been paid so far, over all runs: its ledger is the provider's bill, kept beside the
        answers."""
        judge = getattr(plan.probes.get("judged"), "judge", None)
        return float(judge.ledger().dollars) if judge is not None else 0.0

    def _pay(self, attempt: Attempt, seconds: float) -> None:
        paid = self._judge_paid(self.plan)
        dollars, self.paid = paid - self.paid, paid
        hours = seconds * self.share / 3600
        self.purse.pay(hours, dollars)
        total = self.purse.spent
        self.events.write(
            "spent",
            key=attempt.key,
            hours=hours,
            dollars=dollars,
            total_hours=total.hours,
            total_dollars=total.dollars,
        )


def _joined(first: Summary, second: Summary) -> Summary:
    return Summary(
        [*first.done, *second.done], first.failed | second.failed, [*first.blocked, *second.blocked],
        [*first.left, *second.left], second.stopped or first.stopped,
    )  # fmt: skip


def local_runner(plan: Plan, folder: Path, bar: Bar) -> CellRunner:
    """A worker in this process."""
    from bystander.study.engine.worker import Worker

    return Worker(plan, folder, bar)


def remote_runner(study: Loaded, folder: Path) -> CellRunner:
    """A worker in a Ray actor: it makes the plan anew, so that no plan travels."""
    from bystander.study.engine.worker import Worker

    return Worker(plan_cells(study), folder, Silent())


__all__ = ["Ran", "Wish", "plan_hash", "run_study"]
