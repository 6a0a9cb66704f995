"""Intervals and standard errors of means over questions, personas and seeds, and of a ratio of two means."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bystander.analysis.stats.distributions import norm, t
from bystander.analysis.stats.means import Floats, mean_of, variance_of
from bystander.core.hashing import generator

CONFIDENCE = 0.95  # the project's one level
TAIL = (1 - CONFIDENCE) / 2
ENOUGH_CHANGES = 20.0  # calibrated: see `few_changes`


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean with its interval, one-sided p of mean > 0, and the number of units; NaN where it cannot be known."""

    n: int
    value: float
    low: float
    high: float
    standard_error: float
    df: float
    p: float  # one-sided, in the direction of the behavior

    def p_above(self, threshold: float) -> float:
        """One-sided p of mean > threshold."""
        return _upper_p(self.value - threshold, self.standard_error, self.df)

    def within(self, unit: str) -> Estimate:
        """The interval's ends cut to what a mean change of that unit can be; error and p are untouched."""
        most = FARTHEST.get(unit)
        if most is None:
            return self
        return replace(self, low=float(np.clip(self.low, -most, most)), high=float(np.clip(self.high, -most, most)))


FARTHEST = {"fraction": 1.0, "score": 100.0}  # of a change, by the metric's unit: from all to nothing
NONE = Estimate(0, np.nan, np.nan, np.nan, np.nan, np.nan, np.nan)


@lru_cache(maxsize=8)
def resampling_counts(n: int, resamples: int, seed: int) -> Floats:
    """How often each of n units is in each bootstrap resample -> [resamples, n], read-only."""
    counts = generator("bootstrap", n, resamples, seed).multinomial(n, np.full(n, 1 / n), size=resamples).astype(float)
    counts.flags.writeable = False
    return counts


def resampled_means(values: Floats, resamples: int, seed: int) -> Floats:
    """Bootstrap means over the last axis, the same questions drawn for every row -> [resamples, rows].

    `values` [rows, n], NaN where missing: a missing value is left out of the means, not imputed.
    """
    counts = resampling_counts(values.shape[1], resamples, seed)
    missing = np.isnan(values)
    sums = counts @ np.where(missing, 0.0, values).T
    if not missing.any():
        return sums / values.shape[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums / (counts @ (~missing).T.astype(float))


def bca(values: Floats, resamples: int, seed: int) -> tuple[Floats, Floats]:
    """95 % BCa bootstrap intervals (Efron 1987) of the row means of `values` [rows, n] -> (low [rows], high [rows]).

    Estimand: the mean over the population of questions. Resampling unit: the question. The acceleration of a mean is its
    values' skewness over 6 root n. Expanded as Hesterberg (2015) has it, by Student's t and root n / (n - 1): without
    this, 8 questions cover 87 %. NaN for n < 2 and for rows without variation, of which the bootstrap says nothing.
    """
    rows, n = values.shape
    if n < 2 or not rows:
        return np.full(rows, np.nan), np.full(rows, np.nan)
    count = np.isfinite(values).sum(axis=1)
    draws = np.sort(resampled_means(values, resamples, seed), axis=0)
    mean = mean_of(values, 1)
    deviation = np.where(np.isfinite(values), values - mean[:, None], 0.0)
    square = (deviation**2).sum(axis=1)
    varies = (count > 1) & (square > 1e-18 * n * (1e-300 + np.where(np.isfinite(mean), mean, 0.0) ** 2))
    acceleration = np.where(varies, (deviation**3).sum(axis=1) / (6 * np.where(varies, square, 1.0) ** 1.5), 0.0)
    below = (draws < mean - 1e-12).mean(axis=0) + 0.5 * (np.abs(draws - mean) <= 1e-12).mean(axis=0)
    bias = norm.ppf(np.clip(below, 0.5 / resamples, 1 - 0.5 / resamples))
    freedom = np.maximum(count - 1, 1)
    reach = t.ppf(1 - TAIL, freedom) * np.sqrt((freedom + 1) / freedom)
    ends = [_quantile(draws, _bca_level(bias, acceleration, side * reach)) for side in (-1, 1)]
    return np.where(varies, ends[0], np.nan), np.where(varies, ends[1], np.nan)


def _bca_level(bias: Floats, acceleration: Floats, reach: Floats) -> Floats:
    """The quantile to read where a plain interval would reach `reach` standard errors out."""
    shifted = bias + reach
    shrink = np.maximum(
        1 - acceleration * shifted, 0.05
    )  # at 0 the formula has a pole; the outermost quantile is meant
    return norm.cdf(bias + shifted / shrink)


def _quantile(ordered: Floats, levels: Floats) -> Floats:
    """The quantile `levels[j]` of each column j of sorted draws."""
    position = np.clip(levels, 0, 1) * (len(ordered) - 1)
    lower = np.floor(position).astype(int)
    upper = np.minimum(lower + 1, len(ordered) - 1)
    column = np.arange(ordered.shape[1])
    share = position - lower
    return ordered[lower, column] * (1 - share) + ordered[upper, column] * share


def bounded(values: Floats) -> tuple[Floats, Floats]:
    """95 % intervals of the row means of changes that lie in [-1, 1], `values` [rows, n] -> (low [rows], high [rows]).

    Estimand and resampling unit as for `bca`. Agresti and Min (2005) for paired proportions: half a change is added to
    either side. Changes of fractions count as parts of a change, which can only widen it, since their variance is at
    most that of whole changes. For few questions that hold nearly all of the change, where the bootstrap cannot see what
    it did not draw (docs/calibration.md). NaN for n < 2.
    """
    n = np.isfinite(values).sum(axis=1) + 2
    up = np.nansum(np.maximum(values, 0), axis=1) + 0.5
    down = np.nansum(np.maximum(-values, 0), axis=1) + 0.5
    middle = (up - down) / n
    half = norm.ppf(1 - TAIL) * np.sqrt(up + down - (up - down) ** 2 / n) / n
    enough = n > 3
    low, high = np.maximum(middle - half, -1), np.minimum(middle + half, 1)
    return np.where(enough, low, np.nan), np.where(enough, high, np.nan)


def few_changes(values: Floats) -> NDArray[np.bool_]:
    """Rows of changes in [-1, 1] that add up to fewer than 20 whole changes: there `bounded` keeps its level and the
    bootstrap does not (docs/calibration.md)."""
    return np.nansum(np.abs(values), axis=1) < ENOUGH_CHANGES


def crossed(values: Floats, axes: tuple[int, ...]) -> Estimate:
    """The mean of `values` over everything, when each axis of `axes` is a sample from a population of its own.

    Estimand: the mean over all questions, personas and seeds that these were drawn from. Resampling units: the levels of
    `axes`; an axis with one level contributes nothing, so that the estimate is about that one level only. The variance
    is the sum over axes of var(level means) / levels, less what two axes both count (their interaction, estimated by
    the doubly centered residual). Interval and p from t with Satterthwaite's degrees of freedom. n = 0: all NaN; n = 1:
    no interval.
    """
    levels = [values.shape[axis] for axis in axes]
    value = float(mean_of(values))
    n = int(np.prod([max(level, 0) for level in levels]))
    if np.isnan(value):
        return Estimate(0, value, np.nan, np.nan, np.nan, np.nan, np.nan)
    if max(levels, default=0) < 2:
        return Estimate(min(n, 1), value, np.nan, np.nan, np.nan, np.nan, np.nan)
    parts = [_part(values, axis) for axis in axes if values.shape[axis] > 1]
    total = sum(part for part, _ in parts)
    overlap = _interaction(values, axes)
    variance = max(total - overlap, *(part for part, _ in parts))
    if variance <= 0:
        return Estimate(n, value, np.nan, np.nan, 0.0, np.nan, np.nan)
    df = total**2 / sum(part**2 / freedom for part, freedom in parts if part > 0)
    half = float(t.ppf(1 - TAIL, df)) * variance**0.5
    error = variance**0.5
    return Estimate(n, value, value - half, value + half, error, df, _upper_p(value, error, df))


def _part(values: Floats, axis: int) -> tuple[float, int]:
    others = tuple(i for i in range(values.ndim) if i != axis)
    means = mean_of(values, others)
    count = int(np.isfinite(means).sum())
    return (float(variance_of(means, 0)) / count, count - 1) if count > 1 else (0.0, 1)


def _interaction(values: Floats, axes: tuple[int, ...]) -> float:
    """Variance of the mean that each pair of axes counts twice."""
    total = 0.0
    for i, first in enumerate(axes):
        for second in axes[i + 1 :]:
            shape = values.shape[first], values.shape[second]
            if min(shape) < 2:
                continue
            others = tuple(k for k in range(values.ndim) if k not in (first, second))
            table = mean_of(values, others) if others else values
            left = table - mean_of(table, 0) - mean_of(table, 1)[:, None] + mean_of(table)
            total += float(np.nansum(left**2) / ((shape[0] - 1) * (shape[1] - 1)) / (shape[0] * shape[1]))
    return total


def _upper_p(value: float, error: float, df: float) -> float:
    return float(t.sf(value / error, df)) if np.isfinite(error) and error > 0 else np.nan


def fieller(
    top: float, bottom: float, top_var: float, bottom_var: float, covariance: float, df: float
) -> tuple[float, float]:
    """95 % interval of the ratio top / bottom (Fieller 1954), its two parts having these variances and covariance.

    (NaN, NaN) where the bottom is not distinguishable from 0: the interval is unbounded then.
    """
    critical = float(t.ppf(1 - TAIL, df)) ** 2 if df > 0 else np.nan
    a = bottom**2 - critical * bottom_var
    b = -2 * (top * bottom - critical * covariance)
    c = top**2 - critical * top_var
    inside = b * b - 4 * a * c
    if not np.isfinite(a) or a <= 0 or inside < 0:
        return np.nan, np.nan
    root = inside**0.5
    return (-b - root) / (2 * a), (-b + root) / (2 * a)
