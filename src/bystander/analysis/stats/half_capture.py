"""The similarity at which half of the bystanders are captured, by source and over sources, with partial pooling.

Model: logit P(captured) = slope x (similarity - half of the source); the halves of the sources are normal around a common
one. Similarity is put in standard deviations over all pairs. Where the captured and the others do not overlap, as in real
models they hardly do, maximum likelihood has no finite slope: weak priors (below) keep it. With one number a source and two
over them the posterior is a sum over a grid; nothing is sampled.

Estimands: the mean half over the population of sources, and each source's own. Resampling units: personas and sources.
Intervals are central 95 % of the posterior, of which docs/calibration.md shows the coverage. Nobody captured from any
source, or everybody: NaN with a reason. One source: the common half is that source's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bystander.analysis.stats.finite import require_finite, require_shape
from bystander.analysis.stats.intervals import TAIL
from bystander.core.errors import DataError

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
SLOPES = np.exp(np.linspace(np.log(0.25), np.log(40.0), 24))  # log-odds per standard deviation of similarity
SLOPE_PRIOR = (np.log(4.0), 1.0)  # normal on the log: most between 0.6 and 28
SPREADS = np.linspace(0.03, 2.0, 16)  # of the halves of sources, in standard deviations of similarity
SPREAD_PRIOR = 0.7  # half-normal
HALVES = 101  # places on the grid of the halves
MARGIN = 1.0  # standard deviations that the grid goes beyond the similarities


@dataclass(frozen=True, slots=True)
class HalfCapture:
    """Where half are captured, in the unit of similarity. NaN throughout where `reason` is not empty."""

    value: float  # common to the sources: posterior median
    low: float
    high: float
    by_source: Floats  # [sources]
    by_source_low: Floats
    by_source_high: Floats
    slope: float  # log-odds per unit of similarity
    spread: float  # standard deviation of the sources' halves, in the unit of similarity
    reason: str = ""


def half_capture(similarity: Sequence[Floats], captured: Sequence[Flags]) -> HalfCapture:
    """The half of each source from its bystanders' similarity [personas] and whether they are captured [personas].

    Raises DataError for NaN, shapes that do not fit, and no source at all.
    """
    if not similarity or len(similarity) != len(captured):
        raise DataError(f"{len(similarity)} sources with similarities and {len(captured)} with captured bystanders")
    for x, y in zip(similarity, captured, strict=True):
        require_shape(x.shape, captured=y)
        require_finite(similarity=x)
    every = np.concatenate(list(similarity))
    count = int(sum(y.sum() for y in captured))
    middle, scale = float(every.mean()), float(every.std())
    if count in {0, every.size} or scale == 0:
        return _nothing(len(similarity), f"{count} of {every.size} bystanders are captured, or all are equally similar")
    scores = [(x - middle) / scale for x in similarity]
    grid = np.linspace(min(x.min() for x in scores) - MARGIN, max(x.max() for x in scores) + MARGIN, HALVES)
    likelihood = np.stack([_log_likelihood(x, y, grid) for x, y in zip(scores, captured, strict=True)])
    own, common, slope, spread = _posterior(likelihood, grid)
    ends = np.array([_quantiles(grid, weights) for weights in own])  # [sources, 3]
    low, half, high = _quantiles(grid, common)
    unit = middle + scale * ends
    return HalfCapture(
        middle + scale * half,
        middle + scale * low,
        middle + scale * high,
        unit[:, 1],
        unit[:, 0],
        unit[:, 2],
        slope / scale,
        spread * scale,
    )


def _nothing(sources: int, reason: str) -> HalfCapture:
    nan = np.full(sources, np.nan)
    return HalfCapture(np.nan, np.nan, np.nan, nan, nan, nan, np.nan, np.nan, reason)


def _log_likelihood(x: Floats, y: Flags, grid: Floats) -> Floats:
    """Of one source -> [slopes, halves]."""
    signed = np.where(y, 1.0, -1.0)
    reach = (x - grid[:, None]) * signed  # [halves, personas]
    return np.stack([-np.logaddexp(0.0, -slope * reach).sum(axis=1) for slope in SLOPES])


def _posterior(likelihood: Floats, grid: Floats) -> tuple[Floats, Floats, float, float]:
    """Weights of the grid of halves for each source and for the common one, mean slope and mean spread."""
    sources = len(likelihood)
    prior_slope = -0.5 * ((np.log(SLOPES) - SLOPE_PRIOR[0]) / SLOPE_PRIOR[1]) ** 2
    if sources == 1:
        weights = _normalized(likelihood[0] + prior_slope[:, None])
        return weights.sum(axis=0)[None], weights.sum(axis=0), float(weights.sum(axis=1) @ SLOPES), 0.0
    away = (grid[:, None] - grid) ** 2  # [half of a source, common half]
    kernels = np.exp(-0.5 * away / SPREADS[:, None, None] ** 2)  # [spreads, own, common]
    kernels /= kernels.sum(axis=1, keepdims=True)
    top = likelihood.max(axis=(1, 2), keepdims=True)
    given = np.einsum(
        "skh,thc->skct", np.exp(likelihood - top), kernels, optimize=True
    )  # [sources, slopes, common, spreads]
    given = np.maximum(given, 1e-300)
    prior = prior_slope[:, None, None] - 0.5 * (SPREADS / SPREAD_PRIOR) ** 2
    joint = _normalized(np.log(given).sum(axis=0) + prior)  # [slopes, common, spreads]
    rest = joint / given  # what the other sources say, for each source
    own = np.einsum("skct,thc,skh->sh", rest, kernels, np.exp(likelihood - top), optimize=True)
    own /= own.sum(axis=1, keepdims=True)
    return own, joint.sum(axis=(0, 2)), float(joint.sum(axis=(1, 2)) @ SLOPES), float(joint.sum(axis=(0, 1)) @ SPREADS)


def _normalized(logs: Floats) -> Floats:
    weights = np.exp(logs - logs.max())
    return weights / weights.sum()


def _quantiles(grid: Floats, weights: Floats) -> tuple[float, float, float]:
    """Lower end, median and upper end of a distribution on the grid."""
    cumulative = np.cumsum(weights) - weights / 2
    low, middle, high = np.interp([TAIL, 0.5, 1 - TAIL], cumulative, grid)
    return float(low), float(middle), float(high)
