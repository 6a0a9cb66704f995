"""Prediction skill: what a predictor foretells of a source that it was not fitted on, against two baselines.

Leave one source out: the line from similarity to leakage is fitted on the other sources (and other personas) and foretells
the left-out one's bystanders. Skill is R2 = 1 - squared error of the predictor / squared error of a baseline: the persona's mean over the other
sources (some personas take up anything), and a line on prompt length fitted likewise. Of values (in the metric's unit, the
level included) and of ranks within source (the order alone). Below 0: worse than the baseline.

Estimand: what a study of this many personas, with these sources, foretells on average in the population of personas.
Resampling unit: the persona with all its sources (delete-one jackknife of the log ratio of errors, all lines fitted anew; t).
Fewer than 3 sources or 4 shared personas: NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bystander.analysis.stats.distributions import rankdata, t
from bystander.analysis.stats.finite import require_finite, require_shape
from bystander.analysis.stats.intervals import TAIL
from bystander.analysis.stats.ranks import MIN_PERSONAS

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
        model, by_length = (_errors(_lines(part, y, known), y, known) for part in (x, z))
        by_persona = _errors(_persona_means(y, known), y, known)
        found += [_skill(model, base, known) for base in (by_persona, by_length)]
    return Skills(*found)


def _ranks(values: Floats, known: Flags) -> Floats:
    """Mid-ranks within each source among the known, from -1 to 1."""
    ranks = rankdata(np.where(known, values, np.inf), axis=1)
    count = known.sum(axis=1, keepdims=True)
    return (2 * ranks - count - 1) / np.maximum(count, 1)


def _lines(x: Floats, y: Floats, known: Flags) -> Floats:
    """For each source and persona the line fitted on the other sources' other personas, at its own x.

    A persona that was in the fit under another source would foretell itself: who takes up anything does so from every
    source, and a prompt length goes with the persona. -> [1 + personas, sources, personas]: with all personas, and with
    each left out of the study in turn.
    """
    x0, y0 = np.where(known, x, 0.0), np.where(known, y, 0.0)
    n, sx, sy, sxx, sxy = (_elsewhere(part) for part in (known.astype(float), x0, y0, x0 * x0, x0 * y0))
    n = np.maximum(n, 1)
    spread = sxx - sx**2 / n
    varies = spread > 1e-12 * np.maximum(sxx, 1e-300)
    slope = np.where(varies, (sxy - sx * sy / n) / np.where(varies, spread, 1.0), 0.0)
    return (sy - slope * sx) / n + slope * x


def _elsewhere(part: Floats) -> Floats:
    """Sum over other sources and other personas, with all personas and with each left out -> [1 + personas, sources,
    personas]."""
    others = part.sum(axis=0) - part  # [sources, personas]: the persona under the other sources
    whole = others.sum(axis=1, keepdims=True) - others
    return np.concatenate([whole[None], whole - others.T[:, :, None]])


def _persona_means(y: Floats, known: Flags) -> Floats:
    """Each persona's mean over the other sources; where it has none, the other sources' mean -> [1, sources, personas]."""
    y0 = np.where(known, y, 0.0)
    others = known.sum(axis=0) - known
    level = (y0.sum() - y0.sum(axis=1)) / np.maximum(known.sum() - known.sum(axis=1), 1)
    return np.where(others > 0, (y0.sum(axis=0) - y0) / np.maximum(others, 1), level[:, None])[None]


def _errors(foretold: Floats, y: Floats, known: Flags) -> Floats:
    """Squared errors over each source's personas -> [1 + personas, sources]: of all, and without each persona in turn."""
    left_out = np.concatenate([np.zeros((1, y.shape[1]), dtype=bool), np.eye(y.shape[1], dtype=bool)])
    counted = known & ~left_out[:, None]
    return np.where(counted, (y - foretold) ** 2, 0.0).sum(axis=2)


def _skill(model: Floats, base: Floats, known: Flags) -> Skill:
    """From squared errors [1 + personas, sources]."""
    sources, used = len(known), int(known.any(axis=0).sum())
    if sources < MIN_SOURCES or used < MIN_PERSONAS or not base[0].sum() > 0:
        return Skill(np.nan, np.nan, np.nan, np.full(sources, np.nan))
    with np.errstate(invalid="ignore", divide="ignore"):
        by_source = 1 - model[0] / base[0]
        logs = np.log(model.sum(axis=1) / base.sum(axis=1))
    left = logs[1:][known.any(axis=0)]
    error = float(((used - 1) / used * ((left - left.mean()) ** 2).sum()) ** 0.5)
    half = float(t.ppf(1 - TAIL, used - 1)) * error
    ends = 1 - np.exp(logs[0] + np.array([half, -half]))
    return Skill(float(1 - np.exp(logs[0])), float(ends[0]), float(ends[1]), by_source)
