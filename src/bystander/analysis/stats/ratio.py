"""The leakage ratio: what bystanders got over what the source got, with an interval in which both err together.

Estimand: mean leakage of the population of personas / the source's, over the populations of questions and seeds.
Resampling units: seeds, personas, questions, as crossed levels. Fieller's argument (1954): the interval holds every ratio
R for which the mean of (bystander - R x source) cannot be told from 0. That difference is a number for each seed, persona
and question, so that its variance is one analysis of variance, and nothing can be taken out of the variances and left in
the covariance. No question or persona: NaN; one level of an axis: that axis is about that level alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from bystander.analysis.stats.distributions import t
from bystander.analysis.stats.intervals import TAIL
from bystander.analysis.stats.means import mean_of
from bystander.core.errors import DataError

Floats = NDArray[np.float64]
FARTHEST = 1e4  # half-widths beyond the ratio at which an end is given up as infinite


@dataclass(frozen=True, slots=True)
class Ratio:
    """Bystanders over source. The ends are NaN where the source cannot be told from 0 (the interval is unbounded then)
    or where nothing varies."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of the variance of (bystander - R x source), as a function of R: tables less R x tables, squared."""

    top: Floats
    bottom: Floats
    scale: float  # squares to variance of the mean
    freedom: float

    def at(self, ratio: float) -> float:
        return self.scale * float(np.nansum((self.top - ratio * self.bottom) ** 2))


def leakage_ratio(bystanders: Floats, source: Floats) -> Ratio:
    """Ratio of means with its 95 % interval.

    `bystanders` [seeds, personas, questions] and `source` [seeds, questions]: leakage on the same questions under the same
    seeds, NaN where an item is missing. Raises DataError where the two do not fit.
    """
    if bystanders.ndim != 3 or source.shape != bystanders.shape[::2]:
        raise DataError(
            f"leakage of bystanders {bystanders.shape} and of the source {source.shape} are not [seeds, personas, "
            "questions] and [seeds, questions] of one study"
        )
    top, bottom = float(mean_of(bystanders)), float(mean_of(source))
    if not np.isfinite([top, bottom]).all() or bottom == 0:
        return Ratio(np.nan, np.nan, np.nan)
    parts, overlaps = _parts(bystanders, source)
    value = top / bottom

    def reach(ratio: float) -> float:
        """How far the ratio lies outside the interval: below 0 inside."""
        sizes = [part.at(ratio) for part in parts]
        total = sum(sizes)
        variance = max(total - sum(part.at(ratio) for part in overlaps), *sizes, 0.0)
        if variance <= 0:
            return abs(top - ratio * bottom)
        df = total**2 / sum(size**2 / part.freedom for size, part in zip(sizes, parts, strict=True))
        return abs(top - ratio * bottom) - float(t.ppf(1 - TAIL, df)) * variance**0.5

    if not parts or reach(value) >= 0:
        return Ratio(value, np.nan, np.nan)
    step = max(abs(value), 1e-3 * (1 + abs(value)))
    low, high = (_end(reach, value, side * step) for side in (-1, 1))
    return Ratio(value, low, high) if np.isfinite([low, high]).all() else Ratio(value, np.nan, np.nan)


def _end(reach: Callable[[float], float], start: float, step: float) -> float:
    """Where `reach` crosses 0 on one side of `start`; NaN where it does not within FARTHEST steps."""
    inner, size = start, step
    while abs(size) <= FARTHEST * abs(step):
        outer = start + size
        if reach(outer) > 0:
            return cast("float", brentq(reach, min(inner, outer), max(inner, outer)))
        inner, size = outer, 2 * size
    return float("nan")


def _parts(bystanders: Floats, source: Floats) -> tuple[list[_Part], list[_Part]]:
    """Variance of the mean by axis (seeds, personas, questions), and what each pair of axes counts twice."""
    seeds, personas, questions = bystanders.shape
    own = np.broadcast_to(source[:, None], bystanders.shape)
    parts: list[_Part] = []
    for axis, levels in ((0, seeds), (1, personas), (2, questions)):
        others = tuple(i for i in range(3) if i != axis)
        top = mean_of(bystanders, others)
        bottom = np.zeros(levels) if axis == 1 else mean_of(own, others)
        counted = int((np.isfinite(top) & np.isfinite(bottom)).sum())
        if counted > 1:
            parts.append(_Part(_centered(top), _centered(bottom), 1 / (counted * (counted - 1)), counted - 1))
    overlaps: list[_Part] = []
    for first, second in ((0, 1), (0, 2), (1, 2)):
        shape = bystanders.shape[first], bystanders.shape[second]
        if min(shape) > 1:
            (other,) = set(range(3)) - {first, second}
            top = _residual(mean_of(bystanders, other))
            bottom = _residual(source) if other == 1 else np.zeros(shape)
            scale = 1 / ((shape[0] - 1) * (shape[1] - 1) * shape[0] * shape[1])
            overlaps.append(_Part(top, bottom, scale, np.nan))
    return parts, overlaps


def _centered(means: Floats) -> Floats:
    return means - mean_of(means)


def _residual(table: Floats) -> Floats:
    """Doubly centered [a, b]: what is left without the effects of both axes."""
    return table - mean_of(table, 0) - mean_of(table, 1)[:, None] + mean_of(table)
