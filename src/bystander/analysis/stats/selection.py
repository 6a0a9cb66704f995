"""A configuration picked for its effect is not tested on the items that it was picked on.

The largest of several noisy effects overstates its own truth on the items that made it the largest, and a test on those
rejects too often. The items are split once, by their names alone, so that every process and every later run splits alike.
Estimand: the picked configuration's mean over the population of questions. Resampling unit: the question of the testing
half. Fewer than two testing items: no test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bystander.analysis.stats.intervals import Estimate, crossed
from bystander.analysis.stats.means import mean_of
from bystander.core.errors import DataError
from bystander.core.hashing import stable_order

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Picked:
    """The configuration with the largest mean on the picking items, and its mean on the others."""

    place: int
    picking: float  # its mean on the items it was picked on: overstated
    testing: Estimate  # on the items that had no say in it


def picking_items(items: Sequence[str], *stream: object, share: float = 0.5) -> Flags:
    """Which of `items` are for picking -> [items]; the rest are for testing. `stream`: names that make another split.

    Decided by the items' names: copies of a question get their own place only if their names differ, so pass questions,
    not samples of them. Raises DataError for names that stand twice or a share not in (0, 1).
    """
    if len(set(items)) < len(items):
        raise DataError("the items to be split stand twice: split questions, not samples or paraphrases of them")
    if not 0 < share < 1:
        raise DataError(f"the share of items for picking must be in (0, 1), not {share:g}")
    chosen = set(stable_order(list(items), "picking", *(str(part) for part in stream))[: round(share * len(items))])
    return np.array([item in chosen for item in items], dtype=bool)


def pick_and_test(effects: Floats, picking: Flags) -> Picked:
    """Pick on some items, test on the others. `effects` [configurations, items], NaN where missing; `picking` [items].

    Raises DataError without a configuration or where no item is left on either side.
    """
    if effects.ndim != 2 or picking.shape != effects.shape[1:]:
        raise DataError(f"effects {effects.shape} and the items for picking {picking.shape} do not fit")
    if not len(effects) or not picking.any() or picking.all():
        raise DataError("there must be a configuration, an item to pick on and an item to test on")
    means = mean_of(effects[:, picking], 1)
    if not np.isfinite(means).any():
        raise DataError("no configuration was measured on the items for picking")
    place = int(np.nanargmax(means))
    return Picked(place, float(means[place]), crossed(effects[place][None, ~picking], (0, 1)))
