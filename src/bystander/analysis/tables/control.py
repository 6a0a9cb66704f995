"""What a behavior should leave alone: control metrics, and whether a training broke the model.

The interval of a control's fall is asked, not the point (`stats.control`). It is the raw change from the untrained model: a
benign arm that breaks the model as well does not mend it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bystander.analysis.grid import PairedGrid
from bystander.analysis.settings import AnalysisSettings
from bystander.analysis.stats.control import ControlFall, State, control_fall, over_sources
from bystander.analysis.stats.intervals import NONE, Estimate, crossed
from bystander.analysis.tables.sample import EVERYTHING, source_place
from bystander.core.metrics import is_control, metric


@dataclass(frozen=True, slots=True)
class ControlChange:
    """How far a control metric moved in one training design: raw change, not signed. NaN: not measured there."""

    name: str  # "choice/hellaswag/accuracy"; "" where no control was measured
    bystanders: float
    source: float
    state: State | None  # None: nothing to judge by
    falls: tuple[tuple[str, ControlFall], ...]  # who, and how far
    reason: str

    @property
    def broke(self) -> bool | None:
        """Whether the model broke; None where no control was measured."""
        return None if self.state is None else self.state == "broke"


NO_CONTROL = ControlChange("", np.nan, np.nan, None, (), "no control metric was measured")


def control_of(grid: PairedGrid, whole: Sequence[PairedGrid], settings: AnalysisSettings) -> ControlChange:
    """The control of the same training; of several the one of the outcome's own probe first, and one that broke before all.

    Bystanders and source are both watched: an incoherent source is not a misaligned one.
    """
    found = [
        other
        for other in whole
        if other.training == grid.training and is_control(*other.outcome) and limit_of(other, settings) is not None
    ]
    found.sort(key=lambda other: other.outcome.probe != grid.outcome.probe)
    changes = [_control(other, settings) for other in found]
    broken = [change for change in changes if change.broke]
    return broken[0] if broken else changes[0] if changes else NO_CONTROL


def limit_of(grid: PairedGrid, settings: AnalysisSettings) -> float | None:
    """The fall of a control above which the model counts as broken: what its probe declares, else the setting for its unit;
    None for a metric that has no such limit."""
    declared = metric(grid.outcome.probe, grid.outcome.metric).limit
    return declared if declared is not None else settings.control_limits.get(grid.unit)


def _control(other: PairedGrid, settings: AnalysisSettings) -> ControlChange:
    name, limit = "/".join(other.outcome), limit_of(other, settings)
    assert limit is not None
    raw = other.after - other.untrained(settings.failed_limit)
    chosen, place = other.bystanders(settings.bystander_roles), source_place(other)
    bystanders = crossed(raw[:, chosen], EVERYTHING) if chosen.any() else NONE
    own = NONE if place is None else crossed(raw[:, place], (0, 1))
    if not np.isfinite([bystanders.value, own.value]).any():
        return ControlChange(name, bystanders.value, own.value, None, (), f"{name} has no pair of values")
    falls = tuple(
        (who, _fall(estimate, limit))
        for who, estimate in (("held-out bystanders", bystanders), ("source", own))
        if np.isfinite(estimate.value)
    )
    return _judged(ControlChange(name, bystanders.value, own.value, None, falls, ""), [fall.state for _, fall in falls])


def _fall(change: Estimate, limit: float) -> ControlFall:
    """One value a persona that is the same for all has no interval, and then the point is all there is."""
    fall = control_fall(change, limit)
    if change.standard_error != 0 or change.n < 2:
        return fall
    return replace(fall, low=fall.fall, high=fall.fall, state="broke" if fall.fall > limit else "intact")


def _judged(change: ControlChange, states: Sequence[State]) -> ControlChange:
    """Broke where anybody's fall is shown to exceed the limit, intact where everybody's is shown not to."""
    state: State = "broke" if "broke" in states else "intact" if set(states) == {"intact"} else "open"
    said = [
        f"{change.name} of the {who} {fall.sentence()}"
        for (who, fall), own in zip(change.falls, states, strict=True)
        if own == state
    ]
    return replace(change, state=state, reason="; ".join(said))


def over_trainings(changes: Sequence[ControlChange]) -> list[ControlChange]:
    """The controls of several sources, corrected after Holm over all that was watched: chance breaks none of many."""
    watched = [(at, fall) for at, change in enumerate(changes) for _, fall in change.falls]
    states: list[State] = over_sources([fall for _, fall in watched])
    found: list[ControlChange] = []
    for at, change in enumerate(changes):
        own: list[State] = [state for (place, _), state in zip(watched, states, strict=True) if place == at]
        kept: list[State] = [
            state if np.isfinite(fall.p_intact) else fall.state
            for (_, fall), state in zip(change.falls, own, strict=True)
        ]
        found.append(_judged(change, kept) if change.falls else change)
    return found
