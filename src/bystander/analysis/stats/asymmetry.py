"""Does A leak to B as B leaks to A? Pairs of sources that were measured on each other.

Similarity is symmetric, leakage need not be: what is asymmetric no similarity can rank. Estimand of a pair: leakage of B
under the source A less leakage of A under the source B, over the populations of questions and seeds, each training on its
own seed. Resampling units: questions and seeds, as crossed levels. Over all pairs the p are corrected after Holm. Pairs in
which one is trained as the other's negative are to be left NaN: they are no bystanders. One source: no pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from bystander.analysis.stats.distributions import t
from bystander.analysis.stats.intervals import TAIL, crossed
from bystander.analysis.stats.multiplicity import holm
from bystander.core.errors import DataError

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Asymmetry:
    """Each pair (first, second) of sources with its difference: to the second from the first, less the other way."""

    pairs: tuple[tuple[int, int], ...]
    forth: Floats  # [pairs] leakage of the second under the first
    back: Floats  # [pairs] leakage of the first under the second
    difference: Floats
    low: Floats
    high: Floats
    p: Floats  # two-sided
    p_holm: Floats

    @property
    def p_any(self) -> float:
        """Holm's p that any pair is asymmetric; NaN without a pair."""
        return float(np.nanmin(self.p_holm)) if np.isfinite(self.p_holm).any() else np.nan


def asymmetry(leakage: Floats) -> Asymmetry:
    """Asymmetry of every pair from `leakage` [sources, sources, seeds, questions]: the first axis was trained, the second
    measured, on the same questions; NaN where that was not measured. Raises DataError for another shape."""
    if leakage.ndim != 4 or leakage.shape[0] != leakage.shape[1]:
        raise DataError(f"leakage {leakage.shape} is not [sources, sources, seeds, questions]")
    pairs = tuple(combinations(range(len(leakage)), 2))
    rows = np.full((len(pairs), 6), np.nan)
    for row, (a, b) in enumerate(pairs):
        estimate = crossed(leakage[a, b] - leakage[b, a], (0, 1))
        ends, p = (np.nan, np.nan), np.nan
        if estimate.standard_error > 0:
            half = float(t.ppf(1 - TAIL, estimate.df)) * estimate.standard_error
            ends = estimate.value - half, estimate.value + half
            p = float(2 * t.sf(abs(estimate.value) / estimate.standard_error, estimate.df))
        known = np.isfinite(leakage[a, b] - leakage[b, a])
        forth, back = (float(part[known].mean()) if known.any() else np.nan for part in (leakage[a, b], leakage[b, a]))
        rows[row] = forth, back, estimate.value, *ends, p
    forth, back, difference, low, high, p = rows.T
    return Asymmetry(pairs, forth, back, difference, low, high, p, holm(p))
