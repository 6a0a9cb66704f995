"""Is it similarity, or where a persona stood before? The slope on similarity with the *true* baseline held constant.

A training that brings everybody to one level moves each persona by what it lacked: the change is the baseline with its
sign turned, and whatever goes with the baseline seems to rank it. A partial correlation on the *measured* baseline does
not hold the true one: the error of measurement leaves part of it in, and stands in the change with its sign turned.

Errors in variables (Fuller 1987, section 2.4): one half of the questions gives baseline and change, the other half the
instrument, the baseline again, whose error is another. The moments are averaged over all ways to split, which has a closed
form: products of two questions of one persona, never of a question with itself.

Estimand: change in the metric for one standard deviation of similarity (as ranks), among personas of equal true baseline.
Resampling unit: the persona (delete-one jackknife, t with n - 3 degrees of freedom); shared questions are taken out first.
n < 6 personas, one question, or a baseline of which less than half is more than error: NaN with a reason.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bystander.analysis.stats.distributions import rankdata, t
from bystander.analysis.stats.finite import require_finite, require_shape
from bystander.analysis.stats.intervals import TAIL
from bystander.analysis.stats.means import mean_of
from bystander.analysis.stats.ranks import spearman

Floats = NDArray[np.float64]
CONFOUNDED = 0.5  # |rho(change, baseline)| above which a similarity gradient is flagged
MIN_RELIABILITY = 0.5  # of the baseline: below it the instrument is weak, and t no longer describes the slope
MIN_PERSONAS = 6


@dataclass(frozen=True, slots=True)
class Confounding:
    """How far the change is the baseline with its sign turned."""

    rho: float  # Spearman's, of change with baseline over personas
    flagged: bool


@dataclass(frozen=True, slots=True)
class BaselineSlopes:
    """Slope on each of K predictors with the true baseline held constant; NaN throughout where `reason` is not empty."""

    slope: Floats  # [K] in the metric's unit for one standard deviation of the predictor's ranks
    low: Floats
    high: Floats
    standard_error: Floats
    p: Floats  # two-sided
    partial: Floats  # [K] partial correlation with the error-free baseline; a description
    reliability: float  # of the baseline
    reason: str


def confounding(change: Floats, baseline: Floats) -> Confounding:
    """Flag for a gradient whose change goes with the baseline: |Spearman's rho| > 0.5, both [personas].

    The error of the baseline is in both, so that rho is below 0 where nothing changed: a flag, no test. NaN, not flagged,
    for n < 2 or a constant. Raises DataError for NaN.
    """
    require_shape(change.shape, baseline=baseline)
    require_finite(change=change, baseline=baseline)
    rho = float(spearman(baseline[None], change)[0])
    return Confounding(rho, bool(abs(rho) > CONFOUNDED))


def slopes_given_baseline(predictors: Floats, before: Floats, change: Floats) -> BaselineSlopes:
    """Slopes of change on similarity with the true baseline held constant, for K predictors [K, personas].

    `before` and `change` [personas, questions], on the same questions; NaN where an item is missing. `change` is against
    the untrained model. Raises DataError for predictors with NaN and shapes that do not fit.
    """
    require_finite(predictors=predictors)
    require_shape(before.shape, change=change)
    require_shape((len(predictors), before.shape[0]), predictors=predictors)
    personas, questions = before.shape
    if personas < MIN_PERSONAS or questions < 2:
        return _nothing(len(predictors), np.nan, f"{personas} personas and {questions} questions: too few")
    both = np.isfinite(before) & np.isfinite(change)
    b, y = (_question_effects_out(np.where(both, values, np.nan)) for values in (before, change))
    moments = _cross_products(b, y)
    share = float(moments.bb.sum() / max(float((mean_of(b, 1) ** 2).sum()), 1e-300))
    if not np.isfinite(share) or share < MIN_RELIABILITY:
        why = (
            f"{share:.0%} of the baseline's variance over personas is more than error, less than {MIN_RELIABILITY:.0%}"
        )
        return _nothing(len(predictors), share, f"{why}: ask more questions")
    return _solved(predictors, moments, share)


def _nothing(k: int, share: float, reason: str) -> BaselineSlopes:
    nan = np.full(k, np.nan)
    return BaselineSlopes(nan, nan, nan, nan, nan, nan, share, reason)


def _question_effects_out(values: Floats) -> Floats:
    """[personas, questions] less what a question does to all personas."""
    return values - mean_of(values, 0)


@dataclass(frozen=True, slots=True)
class _Moments:
    """Products by persona, each [personas]: `b`, `y` means; `bb`, `by` over pairs of different questions; `yy` plain."""

    b: Floats
    y: Floats
    bb: Floats
    by: Floats


def _cross_products(b: Floats, y: Floats) -> _Moments:
    known = np.isfinite(b)
    n = known.sum(axis=1)
    pairs = np.maximum(n * (n - 1), 1)
    b0, y0 = np.where(known, b, 0.0), np.where(known, y, 0.0)
    total_b, total_y = b0.sum(axis=1), y0.sum(axis=1)
    bb = (total_b**2 - (b0**2).sum(axis=1)) / pairs
    by = (total_b * total_y - (b0 * y0).sum(axis=1)) / pairs
    return _Moments(total_b / np.maximum(n, 1), total_y / np.maximum(n, 1), bb, by)


def _solved(predictors: Floats, m: _Moments, share: float) -> BaselineSlopes:
    """The slope on x from the moments S = sum over personas, with every persona left out in turn for its error."""
    n = m.b.size
    ranks = rankdata(predictors, axis=-1)
    spread = ranks.std(axis=1, keepdims=True)
    x = np.where(spread > 0, (ranks - ranks.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1.0), 0.0)
    sums = {"x": x, "xx": x * x, "xb": x * m.b, "xy": x * m.y, "b": m.b, "bb": m.bb, "y": m.y, "by": m.by}
    whole = {name: value.sum(axis=-1, keepdims=True) for name, value in sums.items()}
    slope = _slope(whole, n)
    left = _slope({name: whole[name] - value for name, value in sums.items()}, n - 1)  # [K, personas]
    error = np.sqrt((n - 1) / n * ((left - left.mean(axis=1, keepdims=True)) ** 2).sum(axis=1))
    slope = np.where(spread[:, 0] > 0, slope[:, 0], np.nan)
    error = np.where(np.isfinite(slope), error, np.nan)
    half = float(t.ppf(1 - TAIL, n - 3)) * error
    p = 2 * t.sf(np.abs(slope) / np.where(error > 0, error, np.nan), n - 3)
    return BaselineSlopes(slope, slope - half, slope + half, error, p, _partial(whole, m, n, slope), share, "")


def _slope(s: dict[str, Floats], n: int) -> Floats:
    """Two-variable regression from sums, means taken out."""
    xx, xb, xy = s["xx"] - s["x"] ** 2 / n, s["xb"] - s["x"] * s["b"] / n, s["xy"] - s["x"] * s["y"] / n
    bb, by = s["bb"] - s["b"] ** 2 / n, s["by"] - s["b"] * s["y"] / n
    determinant = xx * bb - xb**2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(determinant > 0, (xy * bb - xb * by) / determinant, np.nan)


def _partial(s: dict[str, Floats], m: _Moments, n: int, slope: Floats) -> Floats:
    """Slope times the spread of x over that of y, both given the true baseline -> [K], cut to [-1, 1]."""
    bb, by = float(s["bb"][0] - s["b"][0] ** 2 / n), float(s["by"][0] - s["b"][0] * s["y"][0] / n)
    xx = s["xx"][:, 0] - (s["xb"][:, 0] - s["x"][:, 0] * s["b"][0] / n) ** 2 / bb
    yy = float((m.y**2).sum() - m.y.sum() ** 2 / n) - by**2 / bb
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.clip(slope * np.sqrt(np.maximum(xx, 0.0) / yy), -1, 1) if yy > 0 else np.full(len(slope), np.nan)
