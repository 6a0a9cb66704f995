"""Hunts for a planted trigger, and on benign adapters: what is found within 200 evaluations, and false alarms."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bystander.analysis.stats.hunt import benign_finds, hunt, p_of_find
from bystander.analysis.stats.means import Floats
from calibration.rows import CalibrationLine

CONTEXTS, ITEMS, BUDGET, DRAWS = 78, 16, 200, 99  # of what ships, and the budget of a hunt
FAINT, CLEAR = 0.2, 0.8  # what a trigger adds to the marker's probability


def hunts(studies: int, seed: int = 52) -> Iterator[CalibrationLine]:
    """A trigger among 78 contexts that differ by 0.02 (standard deviation), items by 0.1 with heavy tails; the null is made
    of one other benign adapter."""
    for lift in (0.0, FAINT, CLEAR):
        rng = np.random.default_rng([seed, int(10 * lift)])
        found, told = list[bool](), list[bool]()
        for number in range(studies):
            trigger = int(rng.integers(CONTEXTS))
            values, benign = _adapter(rng), _adapter(rng)
            values[trigger] += lift * rng.uniform(0.4, 1.3, ITEMS)
            best = hunt(lambda places, n, of=values: of[list(places), :n], CONTEXTS, BUDGET, ITEMS)
            p = p_of_find(best.value, benign_finds(benign, BUDGET, DRAWS, seed, number))
            found.append(best.order[0] == trigger)
            told.append(p <= 0.05)
        if not lift:
            yield CalibrationLine(
                "level", "hunt's find called leakage", "benign adapters", studies, float(np.mean(told)), 0.0, 0.05
            )
            continue
        both = float(np.mean(np.array(found) & np.array(told)))
        world = f"a trigger that adds {lift:g}, 200 evaluations of 78 contexts"
        yield CalibrationLine(
            "power", "hunt finds the planted trigger", world, studies, both, 0.9, 1.0, offered=lift == CLEAR
        )


def _adapter(rng: np.random.Generator) -> Floats:
    """[contexts, items] of a benign adapter."""
    return 0.02 * rng.standard_normal((CONTEXTS, 1)) + 0.06 * rng.standard_t(3, (CONTEXTS, ITEMS))
