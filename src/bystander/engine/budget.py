"""What a run has spent, what it may spend, and who approved that.

Spending is read from the events, so that it adds up over processes, also over those that were killed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from bystander.core.errors import StudyError
from bystander.study.config.blocks import Budget
from bystander.study.plan.cells import HASH_CHARACTERS
from bystander.study.store.records import Event, Spent
from bystander.study.store.run_dir import RunDir

MARGIN = 1.2  # an approved forecast may be exceeded by so much: what forecasts are held to


def unpaid(events: Iterable[Event], run: RunDir) -> list[tuple[str, float]]:
    """Cells that a killed process had begun, with the seconds until its last sign of life in them."""
    open_cells: dict[str, tuple[str, datetime]] = {}
    for event in events:
        if event.started:
            open_cells[event.key] = (str(event.details["cell"]), event.time)
        elif event.key and event.kind in ("cell done", "cell failed", "progress", "spent"):
            open_cells.pop(event.key, None)
    return [
        (key, max(0.0, run.cell(name, key).last_written() - since.timestamp()))
        for key, (name, since) in open_cells.items()
    ]


@dataclass
class BudgetTracker:
    """What may be spent, and what has been. A forecast above the budget needs approval; approved, the cap is the
    forecast with a margin."""

    budget: Budget
    spent: Spent
    approved: Spent | None = None
    forecasts: Mapping[str, float] = field(default_factory=dict[str, float])  # cell key -> hours

    @property
    def cap(self) -> Spent:
        """The most that may be spent over all processes."""
        hours, dollars = self.budget.gpu_hours, self.budget.dollars
        if self.approved is not None:
            hours, dollars = max(hours, self.approved.hours), max(dollars, self.approved.dollars)
        return Spent(hours, dollars)

    def pay(self, hours: float, dollars: float) -> None:
        """Add what a cell has cost."""
        self.spent = Spent(self.spent.hours + hours, self.spent.dollars + dollars)

    def may_spend(self, key: str) -> str:
        """Why the cell may not start; "" if it may. Said before it starts, so that the cap is not passed by it."""
        cap, cost = self.cap, self.forecasts.get(key, 0.0)
        if self.spent.hours + cost > cap.hours * (1 + 1e-9) and cost > 0:
            return (
                f"the cap of {cap.hours:.3g} GPU-hours is reached: {self.spent.hours:.3g} are spent and the next cell "
                f"needs about {cost:.2g}; everything complete is saved. Raise budget.gpu_hours, or approve the plan anew"
            )
        if self.spent.dollars > cap.dollars:
            return (
                f"the cap of ${cap.dollars:.2f} is reached: ${self.spent.dollars:.2f} are spent; everything complete is "
                "kept. Raise budget.dollars, or approve the plan anew"
            )
        return ""


def approve(given: str, plan_hash: str, forecast: Spent, budget: Budget, already: Spent) -> Spent | None:
    """What is approved: None where the budget itself allows the forecast. Raises StudyError for a forecast above the
    budget without the hash of this very plan, or with that of another."""
    if given and not (len(given) >= HASH_CHARACTERS and plan_hash.startswith(given)):
        raise StudyError(
            f"--approve {given}: this plan is {plan_hash[:HASH_CHARACTERS]}; it is another plan, or the hash is cut short. "
            "Look at it with `bystander plan`, then approve that"
        )
    total = Spent(already.hours + forecast.hours, already.dollars + forecast.dollars)
    over = [
        f"{total.hours:.3g} GPU-hours against {budget.gpu_hours:g}" if total.hours > budget.gpu_hours else "",
        f"${total.dollars:.2f} against ${budget.dollars:.2f}" if total.dollars > budget.dollars else "",
    ]
    if not any(over):
        return None
    if not given:
        raise StudyError(
            f"the forecast is above the budget ({' and '.join(o for o in over if o)}). Look at it with `bystander plan`; "
            f"then run with --approve {plan_hash[:HASH_CHARACTERS]}, or change the study"
        )
    return Spent(total.hours * MARGIN, total.dollars * MARGIN)
