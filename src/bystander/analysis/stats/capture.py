"""Captured bystanders: whose leakage exceeds a share of the source's (half of it, unless told otherwise).

Leakage in real models is all or nothing more often than a slope: a few personas take the behavior over whole, the rest
not at all, and the mean says little of either. Each bystander is held against the source on the same items and seeds:
leakage - share x source's leakage, of which the sign is in question.

Estimand of the count: how many of *these* bystanders have a true leakage above the share. Its interval carries the error
of items and seeds: closed testing with Simes' local tests (Hommel 1988; Goeman, Meijer, Krebs and Solari 2019) bounds
from below how many lie above, and how many lie below, each with 97.5 %. It promises at least 95 %. Counting point
estimates has no such interval: where all lie a little below, noise lifts half of them over. n = 0: a count of 0 without
an interval; one item: no test.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bystander.analysis.stats.benign import per_bystander
from bystander.analysis.stats.distributions import norm, rankdata
from bystander.analysis.stats.finite import require_finite, require_shape
from bystander.analysis.stats.intervals import TAIL, crossed
from bystander.analysis.stats.means import mean_of
from bystander.core.errors import DataError

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
SHARE = 0.5  # of the source's leakage, above which a bystander counts as captured


@dataclass(frozen=True, slots=True)
class Captures:
    """Who is captured. `reason` not empty: the source's own leakage cannot be told from 0, so that nothing has a share of
    it; then nobody is captured and all p are NaN."""

    captured: Flags  # [personas] by the estimate
    leakage: Floats  # [personas]
    p: Floats  # [personas] one-sided: above the share of the source's
    p_holm: Floats  # names those of whom it can be said with all others looked at
    p_not_holm: Floats  # one-sided: below it, after Holm
    low: int  # 95 % interval of how many truly are
    high: int
    reason: str = ""

    @property
    def count(self) -> int:
        """Captured by the estimate."""
        return int(self.captured.sum())

    @property
    def n(self) -> int:
        """Bystanders looked at."""
        return self.captured.size


def captures(leakage: Floats, source: Floats, share: float = SHARE) -> Captures:
    """Which bystanders are captured, each with its tests, and how many with an interval.

    `leakage` [seeds, personas, questions] and `source` [seeds, questions], on the same questions under the same seeds, NaN
    where an item is missing. Raises DataError where they do not fit or the share is not in (0, 1].
    """
    if leakage.ndim != 3 or source.shape != leakage.shape[::2]:
        raise DataError(
            f"leakage {leakage.shape} and the source's {source.shape} are not of the same seeds and questions"
        )
    if not 0 < share <= 1:
        raise DataError(f"a bystander is captured above a share of the source's leakage in (0, 1], not {share:g}")
    mean = mean_of(leakage, (0, 2))
    top = crossed(source, (0, 1))
    if not top.p <= TAIL:
        return _nobody(mean, f"the source's leakage, {top.value:z.3g}, cannot be told from 0 (p = {top.p:.2g})")
    tests = per_bystander(leakage - share * source[:, None], unit="score")
    tested = np.isfinite(tests.p)
    low = int(tested.sum()) - true_nulls(tests.p[tested], TAIL)
    high = mean.size - int(tested.sum()) + true_nulls(tests.p_below[tested], TAIL)
    above = tests.leakage > 0
    return Captures(above, mean, tests.p, tests.p_holm, tests.p_below_holm, low, high)


def _nobody(mean: Floats, reason: str) -> Captures:
    nan = np.full(mean.size, np.nan)
    return Captures(np.zeros(mean.size, dtype=bool), mean, nan, nan, nan, 0, mean.size, reason)


def true_nulls(p: Floats, alpha: float) -> int:
    """Upper bound, at confidence 1 - alpha, of how many of these null hypotheses are true: Hommel's h.

    The largest i for which i largest p-values pass Simes' test: i x p_(m-i+j) > j x alpha for all j up to i. Simultaneous
    with Holm's rejections and never weaker. 0 for none.
    """
    ordered = np.sort(p)
    m = p.size
    sizes = np.arange(m, 0, -1)
    for size in sizes:
        if (size * ordered[m - size :] > alpha * np.arange(1, size + 1)).all():
            return int(size)
    return 0


@dataclass(frozen=True, slots=True)
class Area:
    """Area under the curve with its 95 % interval: chance that a captured bystander is more similar to the source than one
    that is not. NaN where all or none are captured."""

    value: float
    low: float
    high: float
    captured: int
    others: int


def area(similarity: Floats, captured: Flags) -> Area:
    """Area under the curve of `similarity` [personas] for `captured` [personas].

    Estimand: over the population of personas, captured as these items call it. Resampling unit: the persona. Interval by
    inverting the score (Newcombe 2006, method 5), which holds with few captured and near 1, where it stays inside [0, 1].
    Raises DataError for NaN.
    """
    require_shape(captured.shape, similarity=similarity)
    require_finite(similarity=similarity)
    few = int(captured.sum())
    many = captured.size - few
    if not few or not many:
        return Area(np.nan, np.nan, np.nan, few, many)
    (value,), (low,), (high,) = areas(similarity[None], captured)
    return Area(float(value), float(low), float(high), few, many)


def areas(similarity: Floats, captured: Flags) -> tuple[Floats, Floats, Floats]:
    """`area` of K predictors [K, personas] at once -> (values, low, high), each [K]."""
    require_shape((len(similarity), captured.size), similarity=similarity)
    require_finite(similarity=similarity)
    few = int(captured.sum())
    many = captured.size - few
    if not few or not many:
        nothing = np.full(len(similarity), np.nan)
        return nothing, nothing.copy(), nothing.copy()
    ranks = rankdata(similarity, axis=-1)
    value = (ranks[:, captured].sum(axis=-1) - few * (few + 1) / 2) / (few * many)
    return value, *_newcombe(value, few, many)


def _newcombe(value: Floats, few: int, many: int) -> tuple[Floats, Floats]:
    """Ends where the distance from the value is the critical multiple of the error *there*, by bisection."""
    critical = float(norm.ppf(1 - TAIL))
    weight = (few + many) / 2 - 1

    def missed(area: Floats) -> Floats:
        spread = 1 + weight * ((1 - area) / (2 - area) + area / (1 + area))
        return np.abs(area - value) - critical * np.sqrt(area * (1 - area) * spread / (few * many))

    ends: list[Floats] = []
    for edge in (0.0, 1.0):
        outer, inner = np.full(value.shape, edge), np.clip(value, 1e-9, 1 - 1e-9)
        for _ in range(60):
            middle = (outer + inner) / 2
            inside = missed(middle) < 0
            inner, outer = np.where(inside, middle, inner), np.where(inside, outer, middle)
        ends.append(np.where(value == edge, edge, (outer + inner) / 2))
    return ends[0], ends[1]
