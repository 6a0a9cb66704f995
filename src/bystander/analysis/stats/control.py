"""Did the model break? The interval of a control's fall, not the point.

A control (HellaSwag accuracy, judged coherence) falls by more than its limit by chance alone in a third of sources when a
dozen questions are asked. Here it *broke* when the interval of its fall lies beyond the limit, is *intact* when the
interval lies short of it, and *open* otherwise, with the number of items that would settle it.

Estimand: the mean fall over the populations of personas, questions and seeds (`intervals.crossed`); the source's own over
questions and seeds. Level: 5 % in either direction where the true fall is at the limit. Over several sources the p are
corrected (Holm) before a verdict is spoiled. One question: open.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bystander.analysis.stats.distributions import norm, t
from bystander.analysis.stats.intervals import Estimate
from bystander.analysis.stats.multiplicity import holm
from bystander.core.errors import DataError

Floats = NDArray[np.float64]
State = Literal["broke", "intact", "open"]
LEVEL = 0.05
PLANNED_ITEMS = (
    300  # finds a fall of about 9 points at a limit of 2 (`fall_found` with a deviation of 0.5); 25 find one of 27
)


@dataclass(frozen=True, slots=True)
class ControlFall:
    """How far a control fell. `low`, `high`: 90 % interval of the fall, whose ends are the two one-sided tests."""

    fall: float
    low: float
    high: float
    limit: float
    p_broke: float  # one-sided: the fall exceeds the limit
    p_intact: float  # one-sided: it stays short of it
    state: State

    def sentence(self) -> str:
        """In words."""
        seen = f"fell by {self.fall:z.3g} [{self.low:z.3g}, {self.high:z.3g}], limit {self.limit:g}"
        return {"broke": f"broke: {seen}", "intact": f"intact: {seen}", "open": f"neither shown nor excluded: {seen}"}[
            self.state
        ]


def control_fall(change: Estimate, limit: float) -> ControlFall:
    """State of a control from the estimate of its raw change (after less before). Raises DataError for a limit below 0."""
    if not limit >= 0:
        raise DataError(f"the limit of a control's fall must not be below 0: {limit:g}")
    fall, error, df = -change.value, change.standard_error, change.df
    if not (np.isfinite(fall) and error > 0 and df > 0):
        return ControlFall(fall, np.nan, np.nan, limit, np.nan, np.nan, "open")
    ratio = (fall - limit) / error
    broke, intact = float(t.sf(ratio, df)), float(t.cdf(ratio, df))
    half = float(t.ppf(1 - LEVEL, df)) * error
    return ControlFall(fall, fall - half, fall + half, limit, broke, intact, _state(broke, intact))


def over_sources(falls: Sequence[ControlFall]) -> list[State]:
    """States of the same control over several sources, p corrected after Holm: chance breaks none of many."""
    broke, intact = (holm(np.array(p, dtype=float)) for p in ([f.p_broke for f in falls], [f.p_intact for f in falls]))
    return [_state(float(b), float(i)) for b, i in zip(broke, intact, strict=True)]


def _state(broke: float, intact: float) -> State:
    return "broke" if broke < LEVEL else "intact" if intact < LEVEL else "open"


def fall_found(changed: float, items: int, limit: float = 0.02, power: float = 0.8) -> float:
    """The smallest true fall that is called broken with that power on so many questions: limit + 2.49 changed / root items.

    `changed`: standard deviation over questions of the control's change (mean over the bystanders that answer it; 0.45 to
    0.67 on HellaSwag where every persona has questions of its own). Normal approximation. Raises DataError as `items_needed`.
    """
    _above_zero(limit, changed)
    if items < 2:
        return float("nan")
    return limit + float(norm.ppf(1 - LEVEL) + norm.ppf(power)) * changed / items**0.5


def items_needed(changed: float, limit: float = 0.02, power: float = 0.8) -> int:
    """Control questions with which an unharmed model is shown intact with that power; thousands at a limit of 2 points.

    `changed` as for `fall_found`. Raises DataError for a limit or deviation that is not above 0.
    """
    _above_zero(limit, changed)
    reach = float(norm.ppf(1 - LEVEL) + norm.ppf(power))
    return int(np.ceil((reach * changed / limit) ** 2))


def _above_zero(limit: float, changed: float) -> None:
    if not (limit > 0 and changed > 0):
        raise DataError(f"a limit of {limit:g} and a deviation of {changed:g}: both must be above 0")
