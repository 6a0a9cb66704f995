"""What a run has spent, what it may spend, and who approved that.

Spending is read from the events, so that it adds up over processes, also over those that were killed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from bystander.core.errors import StudyError
from bystander.study.config.blocks import Budget

HASH_CHARACTERS = 12  # of a plan's hash, as people copy it; at least so many must be given
MARGIN = 1.2  # an approved forecast may be exceeded by so much: forecasts are held to within 20 %


@dataclass(frozen=True, slots=True)
class Spent:
    """Device hours and judge dollars."""

    hours: float = 0.0
    dollars: float = 0.0


def spent_so_far(events: Iterable[Mapping[str, Any]]) -> Spent:
    """What all processes of a run have spent."""
    hours = dollars = 0.0
    for event in events:
        if event["event"] == "spent":
            hours += float(event.get("hours", 0.0))
            dollars += float(event.get("dollars", 0.0))
    return Spent(hours, dollars)


def unpaid(events: Iterable[Mapping[str, Any]], folder: Path) -> list[tuple[str, float]]:
    """Cells that a killed process had begun, with the seconds until its last sign of life in them."""
    open_cells: dict[str, tuple[str, datetime]] = {}
    for event in events:
        key = str(event.get("key", ""))
        if event["event"] == "progress" and event.get("state") == "started":
            open_cells[key] = (str(event["cell"]), datetime.fromisoformat(str(event["time"])))
        elif key and event["event"] in ("cell done", "cell failed", "progress", "spent"):
            open_cells.pop(key, None)
    found: list[tuple[str, float]] = []
    for key, (name, since) in open_cells.items():
        files = (path for path in (folder / "cells").glob(f"{name}-{key[:12]}/**/*") if path.is_file())
        last = max((path.stat().st_mtime for path in files), default=0.0)
        found.append((key, max(0.0, last - since.timestamp())))
    return found


@dataclass
class Purse:
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
        """Why the cell may not start; "" if it may. Told before it starts, so that the cap is not passed by it."""
        cap, cost = self.cap, self.forecasts.get(key, 0.0)
        if self.spent.hours + cost > cap.hours * (1 + 1e-9) and cost > 0:
            return (
                f"the cap of {cap.hours:.3g} GPU-hours is reached: {self.spent.hours:.3g} are spent and the next cell "
                f"needs about {cost:.2g}; everything complete is kept. Raise budget.gpu_hours, or approve the plan anew"
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
