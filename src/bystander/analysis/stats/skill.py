"""Prediction skill: what a predictor foretells of a source that it was not fitted on, against two baselines.

Leave one source out: the line from similarity to leakage is fitted on the other sources and foretells the left-out one's
bystanders. Skill is R2 = 1 - squared error of the predictor / squared error of a baseline: the persona's mean over the other
sources (some personas take up anything), and a line on prompt length fitted likewise. Of values (in the metric's unit, the
level included) and of ranks within source (the order alone). Below 0: worse than the baseline.

Estimand: over the population of personas, for these sources and the fits at hand. Resampling unit: the persona with all
its sources (delete-one jackknife of the log ratio of errors, t). Fewer than 3 sources or 4 shared personas: NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata, t

from bystander.analysis.intervals import TAIL
from bystander.analysis.ranks import MIN_PERSONAS
from bystander.analysis.stats.finite import require_finite, require_shape

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
MIN_SOURCES = 3


@dataclass(frozen=True, slots=True)
class Skill:
    """R2 over all left-out sources against one baseline, with its 95 % interval, and by source."""

    value: float
    low: float
    high: float
    by_source: Floats  # [sources]


@dataclass(frozen=True, slots=True)
class Skills:
    """Of values and of ranks, against the persona's mean over the other sources and against prompt length."""

    values_persona: Skill
    values_length: Skill
    ranks_persona: Skill
    ranks_length: Skill


def skills(similarity: Floats, leakage: Floats, prompt_length: Floats, known: Flags) -> Skills:
    """Skill of one predictor: `similarity`, `leakage` [sources, personas], `prompt_length` [personas].

    `known` [sources, personas]: bystanders of that source; the rest (source, negatives) is not read. Raises DataError for
    NaN among the known.
    """
    require_shape(leakage.shape, similarity=similarity, known=known)
    require_shape(leakage.shape[1:], prompt_length=prompt_length)
    require_finite(leakage=leakage[known], similarity=similarity[known], prompt_length=prompt_length)
    length = np.broadcast_to(prompt_length, leakage.shape)
    ranked = _ranks(similarity, known), _ranks(leakage, known), _ranks(length, known)
    found: list[Skill] = []
    for x, y, z in ((similarity, leakage, length), ranked):
        model = _errors(_lines(x, y, known), y, known)
        found += [_skill(model, _errors(base, y, known), known) for base in (_persona_means(y, known), _lines(z, y, known))]
    return Skills(*found)


def _ranks(values: Floats, known: Flags) -> Floats:
    """Mid-ranks within each source among the known, from -1 to 1."""
    ranks = rankdata(np.where(known, values, np.inf), axis=1)
    count = known.sum(axis=1, keepdims=True)
    return (2 * ranks - count - 1) / np.maximum(count, 1)


def _lines(x: Floats, y: Floats, known: Flags) -> Floats:
    """For each source the line fitted on the others, at its own x -> [sources, personas]."""
    weight = known.astype(float)
    x0, y0 = np.where(known, x, 0.0), np.where(known, y, 0.0)
    n, sx, sy, sxx, sxy = (
        part.sum() - part.sum(axis=1) for part in (weight, x0, y0, x0 * x0, x0 * y0)
    )  # of the other sources  # fmt: skip
    spread = sxx - sx**2 / np.maximum(n, 1)
    slope = np.where(spread > 1e-12 * np.maximum(sxx, 1e-300), (sxy - sx * sy / np.maximum(n, 1)) / np.where(spread > 0, spread, 1.0), 0.0)
    level = (sy - slope * sx) / np.maximum(n, 1)
    return level[:, None] + slope[:, None] * x


def _persona_means(y: Floats, known: Flags) -> Floats:
    """Each persona's mean over the other sources; where it has none, the other sources' mean."""
    y0 = np.where(known, y, 0.0)
    others = known.sum(axis=0) - known
    level = (y0.sum() - y0.sum(axis=1)) / np.maximum(known.sum() - known.sum(axis=1), 1)
    return np.where(others > 0, (y0.sum(axis=0) - y0) / np.maximum(others, 1), level[:, None])


def _errors(foretold: Floats, y: Floats, known: Flags) -> Floats:
    return np.where(known, (y - foretold) ** 2, 0.0)


def _skill(model: Floats, base: Floats, known: Flags) -> Skill:
    """From squared errors [sources, personas]."""
    sources, used = len(known), int(known.any(axis=0).sum())
    with np.errstate(invalid="ignore", divide="ignore"):
        by_source = 1 - model.sum(axis=1) / base.sum(axis=1)
        if sources < MIN_SOURCES or used < MIN_PERSONAS or not base.sum() > 0:
            return Skill(np.nan, np.nan, np.nan, np.full(sources, np.nan))
        top, bottom = model.sum(axis=0), base.sum(axis=0)
        log = np.log(top.sum() / bottom.sum())
        left = np.log((top.sum() - top) / (bottom.sum() - bottom))[known.any(axis=0)]
    error = float(((used - 1) / used * ((left - left.mean()) ** 2).sum()) ** 0.5)
    half = float(t.ppf(1 - TAIL, used - 1)) * error
    ends = 1 - np.exp(log + np.array([half, -half]))
    return Skill(float(1 - np.exp(log)), float(ends[0]), float(ends[1]), by_source)
