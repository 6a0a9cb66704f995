"""Two groups or a slope: Hartigan's dip test of unimodality (Hartigan and Hartigan 1985).

The dip is the smallest distance, over all unimodal distributions, between one of them and the empirical distribution. Null:
leakage over the population of personas has one mode. Resampling unit: the persona. p against the uniform distribution, of
all unimodal ones the hardest to tell from two modes, so that the level is held for every one of them: 5 % where leakage
is spread evenly, less where it is heaped in one place. A test of one normal against a mixture of two is not offered: it
takes skewness and an even slope for two groups (docs/calibration.md). n < 4, or a constant: NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bystander.analysis.stats.finite import require_finite
from bystander.core.hashing import generator

Floats = NDArray[np.float64]
MIN_PERSONAS = 4
DRAWS = 1999  # 499 of them put the 5 % point a fifth too low for 107 values: 8 % of even spreads were called two groups


@dataclass(frozen=True, slots=True)
class Dip:
    """Distance to the nearest unimodal distribution, in [1/2n, 1/4], and the p of so large a one."""

    dip: float
    p: float
    n: int


def dip_test(values: Floats, rng: np.random.Generator, step: float = 0.0, draws: int = DRAWS) -> Dip:
    """Is the distribution of `values` [personas] unimodal? Raises DataError for NaN.

    `step`: distance between two neighboring values that can be measured (1/questions for a mean of 0/1 answers). Values
    are spread evenly within it first, since ties look like modes.
    """
    require_finite(values=values)
    n = values.size
    if n < MIN_PERSONAS or np.ptp(values) == 0:
        return Dip(np.nan, np.nan, n)
    spread = values + step * (rng.random(n) - 0.5)
    found = dip(np.sort(spread))
    reference = uniform_dips(n, draws)
    return Dip(found, float((1 + (reference >= found - 1e-12).sum()) / (1 + draws)), n)


@lru_cache(maxsize=64)
def uniform_dips(n: int, draws: int = DRAWS) -> Floats:
    """Dips of `draws` uniform samples of n -> [draws], read-only; decided by n and `draws` alone."""
    samples = np.sort(generator("dip", n, draws).random((draws, n)), axis=1)
    found = np.array([dip(sample) for sample in samples])
    found.flags.writeable = False
    return found


def dip(ordered: Floats) -> float:
    """The dip of sorted values [n].

    With its mode at value m, a unimodal distribution function is convex before and concave after it. Keeping within D of
    every step of the empirical one asks for 2D >= i/n less the greatest convex minorant of ((i-1)/n) before the mode, and
    the mirror image after it. Both can only grow with the number of values on their side: the best mode is bisected for.
    """
    n = ordered.size
    mirrored = -ordered[::-1]
    low, high = 0, n - 1
    while high - low > 1:
        middle = (low + high) // 2
        if _convex_misfit(ordered[: middle + 1], n) < _convex_misfit(mirrored[: n - middle], n):
            low = middle
        else:
            high = middle
    misfits = [max(_convex_misfit(ordered[: m + 1], n), _convex_misfit(mirrored[: n - m], n)) for m in (low, high)]
    return max(min(misfits), 1.0 / n) / 2


def _convex_misfit(ordered: Floats, n: int) -> float:
    """Largest i/n less the greatest convex minorant of the points (x_i, (i-1)/n), over all but the last, the mode, where
    the distribution function may jump."""
    x: list[float] = ordered.tolist()
    hull: list[int] = []
    for i, here in enumerate(x):
        while len(hull) > 1:
            a, b = hull[-2], hull[-1]
            if (b - a) * (here - x[a]) >= (i - a) * (x[b] - x[a]):  # b lies on or above the chord from a to here
                hull.pop()
            else:
                break
        if hull and x[hull[-1]] == here:
            continue  # a tie: the lower point, that of the first, stays
        hull.append(i)
    minorant = np.interp(ordered[:-1], ordered[hull], np.array(hull, dtype=float))
    return float(np.max(np.arange(1, ordered.size) - minorant, initial=0.0)) / n
