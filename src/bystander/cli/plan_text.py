"""The plan, the preflight and the status as a person reads them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from bystander.cli.console import Grid, interval, number
from bystander.results.event_words import in_words
from bystander.results.status import STATES, RunStatus
from bystander.study.forecast.forecast import PhaseCost
from bystander.study.forecast.plan_report import PlanReport
from bystander.study.forecast.power import describe_odds
from bystander.study.plan.cells import HASH_CHARACTERS

if TYPE_CHECKING:
    from bystander.engine.preflight import Check  # with a model's libraries, which a status does without
    from bystander.engine.slurm_jobs import SlurmJob

MARKS = {True: "[green]ok    [/]", False: "[red]failed[/]", None: "[yellow]?     [/]"}  # of a check; None: not made
COLORS = {"RUN": "green", "MODIFY": "yellow", "STOP": "red"}


def print_plan(console: Console, plan: PlanReport, run: str) -> None:
    """Open questions, phases, power, review, prior results, and what to type next: `run` is the command that runs it."""
    console.print(
        f"[bold]{plan.study}[/]  plan {plan.hash[:HASH_CHARACTERS]}  registration {plan.registration[:HASH_CHARACTERS]}"
    )
    _questions(console, plan)
    _phases(console, plan)
    _power(console, plan)
    for remark in plan.remarks:
        console.print(f"  {escape(remark)}", soft_wrap=True)
    _priors(console, plan)
    _review(console, plan)
    for note in (*plan.notes, *plan.designs):
        console.print(f"[dim]note: {escape(note)}[/]", soft_wrap=True)
    _next(console, plan, run)


def _questions(console: Console, plan: PlanReport) -> None:
    if not plan.open_settings:
        console.print("\n[bold]Open questions[/]: none")
        return
    console.print("\n[bold]Open questions[/]")
    for index, question in enumerate(plan.open_settings, 1):
        mark = "[red]blocking[/] " if question.blocking else ""
        taken = escape(f" Taken: {question.default}.") if question.default else ""
        console.print(
            f"  {index}. {mark}{escape(question.text)}{taken} [dim]{escape(question.answer)}[/]", soft_wrap=True
        )


def _phases(console: Console, plan: PlanReport) -> None:
    columns = ("cells", "complete", "scored", "trained", "sampled", "judged", "device hours", "on disk")
    grid = Grid(("phase",), columns, title="Phases")
    for phase in plan.forecast.phases:
        grid.add(f"{phase.phase} {phase.name}", *_cost(phase))
    console.print()
    grid.print(console)
    cost, workers = plan.forecast, plan.forecast.workers
    total = f"  total {hours(cost.hours)} of device time, {hours(cost.wall_hours)} on {workers} worker{'s' * (workers != 1)}"
    judge = "" if cost.dollars == 0 else f", ${cost.dollars:.2f} for the judge" if not math.isnan(cost.dollars) else ""
    console.print(f"{total}, {size(cost.bytes)} on disk{judge} [dim]({escape(cost.dollars_note)})[/]", soft_wrap=True)


def _cost(phase: PhaseCost) -> list[str]:
    work = phase.work
    tokens = [count(value) for value in (work.scored, work.trained, work.sampled, work.judged)]
    return [str(phase.cells), str(phase.complete), *tokens, f"{phase.hours:.3g}", size(phase.bytes)]


def _power(console: Console, plan: PlanReport) -> None:
    columns = ("n", "asks for", "finds at 80 % power", "width of 95 % interval")
    grid = Grid(("hypothesis", "test", "over"), columns, title="Power")
    for row in plan.power:
        asks, finds, width = ("none" if math.isnan(v) else f"{v:.3g}" for v in (row.threshold, row.smallest, row.width))
        grid.add(row.hypothesis, row.test, row.unit, str(row.n), asks, finds, width)
    if plan.power:
        console.print()
        grid.print(console)
        assumed = "; ".join(dict.fromkeys(row.assumed for row in plan.power if row.assumed))
        console.print(f"  [dim]assumed: {escape(assumed)}[/]", soft_wrap=True)
    for row in plan.power:
        if row.out_of_reach:
            console.print(f"  [red]out of reach[/]: {escape(row.out_of_reach)}", soft_wrap=True)
        elif row.weak:
            console.print(f"  [yellow]weak[/]: {escape(row.weak)}", soft_wrap=True)
    if plan.gate is not None:
        console.print(f"  [bold]gate[/]: {describe_odds(plan.gate)}", soft_wrap=True)
        goes = ", ".join(f"{chance:.0%} at {rho:g}" for rho, chance in plan.gate.goes_on.items())
        console.print(f"  the study goes on with {goes} (the same true rho for every behavior)", soft_wrap=True)
    if plan.gate_on_all is not None:
        console.print(
            f"  to gate on all personas instead costs {hours(plan.gate_on_all_hours)} more: {describe_odds(plan.gate_on_all)}",
            soft_wrap=True,
        )


def _priors(console: Console, plan: PlanReport) -> None:
    if not plan.priors:
        return
    names, numbers = ("file", "metric", "source", "predictor"), ("n", "rho", "95 %", "p")
    grid = Grid(names, numbers, title="Prior results (no GPU)")
    for row in plan.priors:
        grid.add(
            row.origin, row.metric, row.source, row.predictor, str(row.n), number(row.rho, 2), interval(row.low, row.high),
            number(row.p, 4),
        )  # fmt: skip
    console.print()
    grid.print(console)


def _review(console: Console, plan: PlanReport) -> None:
    review = plan.review
    console.print(f"\n[bold]Review[/]: {review.score:.1f} of 5 → [{COLORS[review.verdict]}]{review.verdict}[/]")
    for one in review.dimensions:
        missing = f"  [yellow]missing: {'; '.join(one.missing)}[/]" if one.missing else ""
        console.print(f"  {one.score}  {one.name}{missing}", soft_wrap=True)
    if review.changes and review.verdict != "RUN":
        console.print("  changes: " + "; ".join(review.changes), soft_wrap=True)


def _next(console: Console, plan: PlanReport, run: str) -> None:
    if any(question.blocking for question in plan.open_settings):
        console.print("\n[red]not runnable yet[/]: answer the blocking questions in the study file or with --set")
    elif plan.needs_approval:
        console.print(
            f"\nabove the budget of {plan.budget_hours:g} GPU-hours and ${plan.budget_dollars:g}: "
            f"[bold]{escape(run)} --approve {plan.hash[:HASH_CHARACTERS]}[/]",
            soft_wrap=True,
        )
    else:
        console.print(f"\nwithin the budget of {plan.budget_hours:g} GPU-hours and ${plan.budget_dollars:g}")


def print_checks(console: Console, checks: Sequence[Check]) -> None:
    """Preflight, one line a check."""
    for check in checks:
        mark = MARKS[check.ok]
        console.print(f"{mark} [bold]{check.name:13}[/] {escape(check.message)}", soft_wrap=True)


def print_status(console: Console, status: RunStatus) -> None:
    """Phases, spend against forecast, time left, the last events."""
    by = f" by {status.holder}" if status.holder else ""
    console.print(f"[bold]{status.study}[/]  plan {status.plan}  [bold]{status.state}[/]{by}")
    grid = Grid(("phase",), STATES)
    for phase in status.phases:
        grid.add(f"{phase.phase} {phase.name}", *(str(phase.counts[state]) for state in STATES))
    grid.print(console)
    for name in status.running:
        console.print(f"running: {name}", soft_wrap=True)
    for name, why in status.failed.items():
        console.print(f"[red]failed[/]: {name}: {escape(why)}", soft_wrap=True)
    if status.gate:
        console.print(f"gate: [bold]{status.gate}[/], {escape(status.gate_reason)}", soft_wrap=True)
    left = "" if status.seconds_left is None else f", about {hours(status.seconds_left / 3600)} left"
    console.print(
        f"spent {hours(status.spent.hours)} of {hours(status.forecast.hours)} forecast, "
        f"${status.spent.dollars:.2f} of ${status.forecast.dollars:.2f}{left}",
        soft_wrap=True,
    )
    for event in status.events:
        console.print(f"[dim]{event.time:%Y-%m-%d %H:%M:%S}[/] {escape(in_words(event))}", soft_wrap=True)


def count(value: float) -> str:
    """A number of tokens or calls, short."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:.0f}"


def size(value: float) -> str:
    """Bytes, short."""
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:.0f} B"


def hours(value: float) -> str:
    """Hours for a person."""
    if value < 1 / 60:
        return f"{value * 3600:.0f} s"
    return f"{value * 60:.0f} min" if value < 2 else f"{value:.1f} h"


def print_jobs(console: Console, jobs: Sequence[SlurmJob]) -> None:
    """The Slurm jobs of a run that live, whether or not a driver does."""
    for job in jobs:
        at = f": {job.cell}" if job.cell else ""
        console.print(f"slurm job {job.id}: {job.state.lower()}, {job.where}{at}", soft_wrap=True, markup=False)
