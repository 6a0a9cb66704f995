"""Sources side by side: permutation tests and the mixed model over all pairs of source and persona.

Resampling unit: the persona, with all its sources at once, for a persona that takes up everything does so from every
source, and pairs that share it are not independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bystander.analysis.settings import AnalysisSettings
from bystander.analysis.stats.crossed_effects import crossed_slope
from bystander.analysis.stats.distributions import rankdata
from bystander.analysis.stats.means import Floats
from bystander.analysis.stats.ranks import TIE, centered_within, codes, p_two_sided, permutations
from bystander.analysis.tables.sample import Sample


@dataclass(frozen=True)
class SourceSample:
    """One source: its personas' names, their sample, and K predictors [K, personas] in an order that all sources share."""

    names: tuple[str, ...]
    sample: Sample
    predictors: Floats


@dataclass(frozen=True)
class Crossing:
    """Sources x personas. Scores are ranks within source with mean 0 and variance 1; 0 where `known` is False."""

    known: NDArray[np.bool_]  # [sources, personas]
    leakage: Floats  # [sources, personas]
    predictors: Floats  # [K, sources, personas]
    categories: tuple[str, ...]

    @property
    def pairs(self) -> int:
        """Source x bystander pairs."""
        return int(self.known.sum())


def crossing(sources: Sequence[SourceSample], within_category: bool = False) -> Crossing:
    """Put sources side by side over the union of their personas; centered within category where asked."""
    union = sorted({name for source in sources for name in source.names})
    column = {name: index for index, name in enumerate(union)}
    categories = ["" for _ in union]
    known = np.zeros((len(sources), len(union)), dtype=bool)
    leakage = np.zeros(known.shape)
    predictors = np.zeros((len(sources[0].predictors), *known.shape))
    for row, source in enumerate(sources):
        at = [column[name] for name in source.names]
        labels = list(source.sample.categories) or [""] * len(at)
        for index, label in zip(at, labels, strict=True):
            categories[index] = label
        groups = codes(labels) if within_category else codes([""] * len(at))
        known[row, at] = True
        leakage[row, at] = _scores(source.sample.leakage, groups)
        predictors[:, row, at] = _scores(source.predictors, groups)
    return Crossing(known, leakage, predictors, tuple(categories))


def _scores(values: Floats, groups: tuple[int, ...]) -> Floats:
    ranks = centered_within(rankdata(values, axis=-1), groups)
    deviation = ranks.std(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(deviation > TIE, ranks / deviation, 0.0)


def matrix_permutation(
    data: Crossing, settings: AnalysisSettings, within_category: bool = False
) -> tuple[Floats, Floats]:
    """Rho over all pairs and its two-sided p, personas permuted jointly over the sources -> ([K], [K]).

    Mantel-like: a permutation moves a persona's leakage from all sources together, so whatever a persona brings along
    (readiness to take up anything) moves with it. Pairs that fall on a hole (the source itself, its negatives) drop out,
    and the sum is scaled by the root of the pairs that are left.
    """
    if data.known.shape[1] < 4:
        return np.full(len(data.predictors), np.nan), np.full(len(data.predictors), np.nan)
    x = data.predictors.reshape(len(data.predictors), -1)
    rho = x @ data.leakage.ravel() / data.pairs
    groups = codes(list(data.categories)) if within_category else None
    drawn = permutations(data.known.shape[1], settings.permutations, settings.seed, groups)
    permuted = np.empty((len(drawn), len(x)))
    for start in range(0, len(drawn), 2_000):  # 2,000 x 555 pairs: 9 MB at a time
        part = drawn[start : start + 2_000]
        moved = data.leakage[:, part].transpose(1, 0, 2).reshape(len(part), -1)
        left = (data.known[:, part].transpose(1, 0, 2) & data.known).reshape(len(part), -1).sum(axis=1)
        permuted[start : start + 2_000] = moved @ x.T / np.sqrt(np.maximum(left, 1) * data.pairs)[:, None]
    constant = (x == 0).all(axis=1) | ~data.leakage.any()
    rho = np.where(constant, np.nan, rho)
    return rho, p_two_sided(rho, permuted)


def stratified_permutation(data: Crossing, settings: AnalysisSettings) -> tuple[Floats, Floats]:
    """What is specific to the pair: rho with persona means over sources taken out of both, and its two-sided p, leakage
    permuted within each source -> ([K], [K]).

    Does a persona leak more from the sources that it is closer to? Persona effects are held constant after Freedman and
    Lane (1983): without that, a plain permutation within source rejects a true null far above its level as soon as some
    personas leak more than others from every source (docs/calibration.md). NaN for one source.
    """
    sources, rows = np.nonzero(data.known)
    nothing = np.full(len(data.predictors), np.nan)
    if data.known.shape[0] < 2 or data.known.shape[1] < 4:
        return nothing, nothing.copy()
    basis = _effects(sources, rows, data.known.shape)
    y = _left(data.leakage[sources, rows], basis)
    x = _left(data.predictors[:, sources, rows], basis)
    with np.errstate(invalid="ignore", divide="ignore"):
        x = x / np.linalg.norm(x, axis=-1, keepdims=True)
        y = y / np.linalg.norm(y)
    rho = x @ y
    drawn = permutations(len(y), settings.partial_permutations, settings.seed, tuple(int(s) for s in sources))
    shuffled = y[drawn]
    length = np.sqrt(np.clip(1 - ((shuffled @ basis) ** 2).sum(axis=1), 1e-12, None))
    return rho, p_two_sided(rho, shuffled @ x.T / length[:, None])


def _effects(sources: NDArray[np.intp], rows: NDArray[np.intp], shape: tuple[int, ...]) -> Floats:
    """Orthonormal basis [pairs, effects] of source and persona effects."""
    full = np.hstack([np.eye(shape[0])[sources], np.eye(shape[1])[rows]])
    left, size, _ = np.linalg.svd(full, full_matrices=False)
    return left[:, size > 1e-9 * size[0]]


def _left(values: Floats, basis: Floats) -> Floats:
    return values - (values @ basis) @ basis.T


def mixed_model(sources: Sequence[SourceSample], predictor: int) -> tuple[float, float, float, float, str]:
    """Slope of leakage on similarity, both as standardized ranks over all pairs, with random effects of source and of
    persona -> (slope, low, high, p, reason). The check of the permutation tests (`stats.crossed_effects`)."""
    names = [name for source in sources for name in source.names]
    place = {name: index for index, name in enumerate(dict.fromkeys(names))}
    found = crossed_slope(
        _scores_over_all([source.sample.leakage for source in sources]),
        _scores_over_all([source.predictors[predictor] for source in sources]),
        np.repeat(np.arange(len(sources)), [len(source.names) for source in sources]),
        np.array([place[name] for name in names], dtype=np.intp),
    )
    return found.value, found.low, found.high, found.p, found.reason


def _scores_over_all(parts: list[Floats]) -> Floats:
    ranks = rankdata(np.concatenate(parts))
    return (ranks - ranks.mean()) / max(float(ranks.std()), TIE)
