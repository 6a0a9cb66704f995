"""What a gate on a similarity gradient decides, before it is run: chance to stop, by the statistic that it reads.

A gate reads rho, or an end of its 95 % interval, over few bystanders and stops below a threshold. Simulated with the very
interval that the analysis gives below 20 bystanders (delete-one jackknife), normal scores, leakage of a given reliability.
n < 4: NaN, there is no interval.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bystander.analysis.stats.distributions import rankdata, t
from bystander.analysis.stats.intervals import TAIL
from bystander.analysis.stats.means import variance_of
from bystander.analysis.stats.power import pearson_of
from bystander.analysis.stats.ranks import MIN_PERSONAS, unit, unit_ranks
from bystander.analysis.stats.uncertainty import FEW_PERSONAS, atanh
from bystander.core.errors import DataError
from bystander.core.hashing import generator

Floats = NDArray[np.float64]
Statistic = Literal["rho", "low", "high"]
STUDIES = 4_000  # odds to within 0.016 (two binomial standard errors at a half)


@lru_cache(maxsize=64)
def gate_statistics(n: int, rho: float, reliability: float = 1.0, studies: int = STUDIES) -> dict[Statistic, Floats]:
    """Simulated rho and ends of its interval among `n` bystanders whose true rho is `rho` -> each [studies].

    Variance of Fisher's z: the delete-one jackknife of the analysis below 20 bystanders; from there on, where the analysis
    resamples, Bonett and Wright's (2000), which is for planning only.
    """
    if not -1 < rho < 1 or not 0 < reliability <= 1:
        raise DataError(f"a true rho of {rho:g} with a reliability of {reliability:g} cannot be simulated")
    random = generator("gate", n, studies)
    x, noise = random.standard_normal((2, studies, n))
    pearson = pearson_of(rho) * reliability**0.5
    y = pearson * x + (1 - pearson**2) ** 0.5 * noise
    found = (unit_ranks(x) * unit_ranks(y)).sum(axis=1)
    variance = _jackknifed(x, y) if n < FEW_PERSONAS else (1 + found**2 / 2) / (n - 3)
    half = t.ppf(1 - TAIL, n - 2) * np.sqrt(variance)
    z = atanh(found)
    return {"rho": found, "low": np.tanh(z - half), "high": np.tanh(z + half)}


def _jackknifed(x: Floats, y: Floats) -> Floats:
    """`uncertainty.persona_variance` of many small studies at once: [studies, n] twice -> [studies]."""
    studies, n = x.shape
    others = ~np.eye(n, dtype=bool)

    def without(values: Floats) -> Floats:
        below = (values[:, :, None] < values[:, None]) + 0.5 * (values[:, :, None] == values[:, None])
        ranks = rankdata(values, axis=1)[:, None] - below
        return unit(ranks[:, others].reshape(studies, n, n - 1))

    return (n - 1) ** 2 / n * variance_of(atanh((without(x) * without(y)).sum(axis=2)), 1)


def gate_stops(n: int, threshold: float, rho: float, statistic: Statistic, reliability: float = 1.0) -> float:
    """Chance that a gate over `n` bystanders stops the study: its statistic lies below `threshold`. NaN for n < 4."""
    if n < MIN_PERSONAS:
        return float("nan")
    return float((~(gate_statistics(n, rho, reliability)[statistic] >= threshold)).mean())


def bystanders_needed(
    threshold: float, statistic: Statistic, rho: float = 0.0, power: float = 0.8, most: int = 200
) -> int | None:
    """Fewest bystanders (of 8, 12, 16, 24, ... up to `most`) with which a gate stops studies of a true `rho` with that
    power; None where not even `most` do. What a gate with power costs is this many evaluations."""
    for n in (8, 12, 16, 24, 32, 48, 64, 96, 128, 160, 200):
        if n <= most and gate_stops(n, threshold, rho, statistic) >= power:
            return n
    return None
