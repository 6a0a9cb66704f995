"""Is it the similarity to *this* source? The null of other personas as pseudo-sources.

Personas lie on a manifold of few dimensions, so that whatever varies smoothly over it correlates with the similarity to
half of all personas (Guillot and Rousset 2013, for Mantel tests of autocorrelated data). A permutation of personas tears
the manifold up and takes any such correlation for news. Here the reference is the same correlation with the similarity to
every other persona: where those rank the leakage as well, nothing ties it to the source.

Estimand: rho (or the area under the curve) of the source's similarity over its bystanders, among the same for all
personas. Resampling unit: the source. Null: the source is one persona as any other, as regards who leaks. A maximum over
layers is held against the pseudo-sources' maxima (max-T, Westfall and Young 1993). Several sources: which similarity goes
with which leakage is permuted, personas staying where they are. n < 4 bystanders, or an outcome that does not vary: NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from math import factorial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bystander.analysis.stats.distributions import rankdata
from bystander.analysis.stats.finite import require_finite, require_shape
from bystander.analysis.stats.ranks import MIN_PERSONAS, TIE, unit
from bystander.core.errors import DataError

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Alternative = Literal["greater", "two-sided"]
ALL_ORDERS = 7  # up to 7! = 5,040 orders of the sources are all looked at


@dataclass(frozen=True, slots=True)
class Specificity:
    """One source among pseudo-sources, layer by layer. `attainable`: the smallest p that so many references allow."""

    observed: Floats  # [layers] rho or area of the true source
    p: Floats  # [layers] rank of the true source at that layer
    p_adjusted: Floats  # [layers] against the pseudo-sources' largest over layers
    p_max: float  # of the largest over layers
    references: Floats  # [layers, pseudo-sources] rho or area of every other persona
    attainable: float

    @property
    def n_references(self) -> int:
        """Pseudo-sources that the true source is ranked among."""
        return int(self.references.shape[1])


@dataclass(frozen=True, slots=True)
class PseudoSources:
    """One source among all personas as pseudo-sources, ranked once for every outcome over the same bystanders."""

    source: int
    at: NDArray[np.intp]  # [n] places of the bystanders
    kept: Flags  # [personas, n]: bystanders of each pseudo-source, itself left out
    ranks: Floats  # [layers, personas, n] of similarity among the kept, centered, 0 for the others
    size: Floats  # [layers, personas] their sum of squares
    explained: Floats | None = None  # [personas, c, n] covariates, centered, which are out of the ranks
    solved: Floats | None = None  # [personas, c, c] inverse of their products

    def given(self, prompt_length: Floats) -> PseudoSources:
        """The same with the ranks of `prompt_length` [personas] and of its distance to the (pseudo-)source's held constant."""
        covariates = _lengths(prompt_length, self.kept, self.at)
        products = covariates @ covariates.transpose(0, 2, 1)
        inverse = np.asarray(np.linalg.pinv(products, rcond=1e-9, hermitian=True), dtype=np.float64)
        ranks = _left(self.ranks, covariates, inverse)
        return PseudoSources(self.source, self.at, self.kept, ranks, (ranks**2).sum(axis=2), covariates, inverse)

    def rank(self, outcome: Floats, alternative: Alternative = "greater") -> Specificity:
        """Rank of the source's rho with `outcome` [personas], read for the bystanders only. Raises DataError for NaN."""
        require_finite(outcome=outcome[self.at])
        z = _masked_ranks(np.broadcast_to(outcome[self.at], self.kept.shape), self.kept)
        if self.explained is not None and self.solved is not None:
            z = _left(z[None], self.explained, self.solved)[0]
        spread = np.sqrt(self.size * (z**2).sum(axis=1))
        count = self.kept.sum(axis=1)
        enough = (count >= MIN_PERSONAS) & (spread > TIE * count)
        values = _products(self.ranks, z) / np.where(enough, spread, 1.0)
        return _ranked(np.where(enough, values, np.nan), self.source, alternative)

    def rank_area(self, captured: Flags) -> Specificity:
        """Rank of the source's area under the curve for `captured` [personas]. One-sided; without covariates."""
        positive = self.kept & captured[self.at]
        few, many = positive.sum(axis=1), (self.kept & ~positive).sum(axis=1)
        pairs = few * many
        # Centered ranks: sum of the captured's ranks less few (n + 1) / 2, and few (few + 1) / 2 = few (n + 1) / 2 - pairs / 2.
        above = _products(self.ranks, positive.astype(float)) + pairs / 2
        return _ranked(np.where(pairs > 0, above / np.maximum(pairs, 1), np.nan), self.source, "greater")


def _products(ranks: Floats, z: Floats) -> Floats:
    """[layers, personas, n] with [personas, n], summed over the bystanders -> [layers, personas]."""
    return np.matmul(ranks.transpose(1, 0, 2), z[:, :, None])[:, :, 0].T


def _left(values: Floats, explained: Floats, solved: Floats) -> Floats:
    """[layers, personas, n] less what each pseudo-source's own covariates explain."""
    by_persona = values.transpose(1, 0, 2)
    slopes = by_persona @ explained.transpose(0, 2, 1) @ solved
    return (by_persona - slopes @ explained).transpose(1, 0, 2)


def pseudo_sources(
    similarity: Floats, source: int, bystanders: Flags, prompt_length: Floats | None = None
) -> PseudoSources:
    """What `specificity` ranks, without an outcome. Arguments and errors as there."""
    stack = similarity[None] if similarity.ndim == 2 else similarity
    n = bystanders.size
    require_shape((len(stack), n, n), similarity=stack)
    if bystanders[source]:
        raise DataError(f"the source (place {source}) is among its own bystanders")
    require_finite(similarity=stack[:, :, bystanders])
    at = np.flatnonzero(bystanders)
    kept = at != np.arange(n)[:, None]
    ranks = np.stack([_masked_ranks(layer[:, bystanders], kept) for layer in stack])
    found = PseudoSources(source, at, kept, ranks, (ranks**2).sum(axis=2))
    return found if prompt_length is None else found.given(prompt_length)


def specificity(
    similarity: Floats,
    outcome: Floats,
    source: int,
    bystanders: Flags,
    *,
    prompt_length: Floats | None = None,
    alternative: Alternative = "greater",
) -> Specificity:
    """Rank of the source's rho among those of all other personas as pseudo-sources.

    `similarity` [personas, personas] or [layers, personas, personas], row = (pseudo-)source; `outcome` [personas] leakage,
    read for `bystanders` [personas] only, which must leave out the source. A pseudo-source is no bystander of its own.
    With `prompt_length` [personas] rho is partial on its ranks and on those of the distance to the (pseudo-)source's
    length, since a source's similarity may be in either. Raises DataError for NaN among the bystanders.
    """
    require_shape((outcome.size,), bystanders=bystanders)
    return pseudo_sources(similarity, source, bystanders, prompt_length).rank(outcome, alternative)


def specificity_of_area(similarity: Floats, captured: Flags, source: int, bystanders: Flags) -> Specificity:
    """The same for the area under the curve: chance that a captured bystander is more similar than one that is not.

    `captured` [personas]; the rest as in `specificity`. One-sided.
    """
    require_shape((captured.size,), bystanders=bystanders)
    return pseudo_sources(similarity, source, bystanders).rank_area(captured)


def _masked_ranks(values: Floats, kept: Flags) -> Floats:
    """Mid-ranks along the last axis among the kept, centered; 0 for the others."""
    ranks = rankdata(np.where(kept, values, np.inf), axis=-1)
    count = kept.sum(axis=-1, keepdims=True)
    return np.where(kept, ranks - (count + 1) / 2, 0.0)


def _lengths(length: Floats, kept: Flags, at: NDArray[np.intp]) -> Floats:
    """Ranks of raw length and of the distance to the (pseudo-)source's length -> [personas, 2, n], 0 where not kept."""
    require_finite(prompt_length=length)
    own = length[at]
    raw = _masked_ranks(np.broadcast_to(own, kept.shape), kept)
    away = _masked_ranks(np.abs(own - length[:, None]), kept)
    return np.stack([raw, away], axis=1)


def _ranked(values: Floats, source: int, alternative: Alternative) -> Specificity:
    """Rank the source among the rest of `values` [layers, personas]. A layer in which all personas are alike (the
    embeddings, where every prompt ends on the same token) has no number for the source: it gets no p, and the others
    are ranked without it."""
    size = np.abs(values) if alternative == "two-sided" else values
    ranked = np.isfinite(size[:, source])
    known = np.array(np.isfinite(size[ranked]).all(axis=0), dtype=bool)
    known = known & (np.arange(known.size) != source)
    references, own = size[ranked][:, known], size[ranked, source]
    n = int(known.sum())
    p, adjusted = np.full(len(values), np.nan), np.full(len(values), np.nan)
    if n == 0 or not ranked.any():
        return Specificity(values[:, source], p, adjusted, np.nan, values[:, known], 1 / (n + 1))
    largest = references.max(axis=0)
    p[ranked] = (1 + (references >= own[:, None] - TIE).sum(axis=1)) / (n + 1)
    adjusted[ranked] = (1 + (largest >= own[:, None] - TIE).sum(axis=1)) / (n + 1)
    return Specificity(values[:, source], p, adjusted, float(np.nanmin(adjusted)), values[:, known], 1 / (n + 1))


@dataclass(frozen=True, slots=True)
class LabelPermutation:
    """Mean rho over sources against the same with the sources' similarities dealt out otherwise."""

    observed: Floats  # [layers]
    p: Floats  # [layers]
    p_adjusted: Floats  # [layers] against the largest over layers
    p_max: float
    orders: int
    attainable: float  # 1 / number of orders; 0.5 for two sources, 1/120 for five


def source_labels(
    similarity: Floats,
    leakage: Floats,
    rng: np.random.Generator,
    *,
    alternative: Alternative = "greater",
    draws: int = 9_999,
) -> LabelPermutation:
    """Permutation of source labels: does each source's own similarity rank its leakage better than another source's?

    `similarity` [sources, personas] or [layers, sources, personas], `leakage` [sources, personas], over the bystanders
    that all sources share (no source among them). What a persona takes up from every source stays in place. All orders up
    to 7 sources, else `draws` random ones. One source: NaN, attainable 1.
    """
    stack = similarity[None] if similarity.ndim == 2 else similarity
    sources, n = leakage.shape
    require_shape((len(stack), sources, n), similarity=stack)
    require_finite(similarity=stack, leakage=leakage)
    nothing = np.full(len(stack), np.nan)
    if sources < 2 or n < MIN_PERSONAS:
        return LabelPermutation(nothing, nothing.copy(), nothing.copy(), np.nan, 1, 1.0)
    y = unit(rankdata(leakage, axis=-1))
    pairs = np.stack([y @ unit(rankdata(layer, axis=-1)).T for layer in stack])  # [layers, leakage of, similarity to]
    orders = _orders(sources, rng, draws)
    means = pairs[:, np.arange(sources), orders].mean(axis=-1)  # [layers, orders]; the first order is the true one
    observed = means[:, 0].copy()
    size = np.abs(means) if alternative == "two-sided" else means
    ranked = np.isfinite(size).all(axis=1)  # not where all personas are alike to a source, as in the embeddings
    p, adjusted = nothing, nothing.copy()
    if ranked.any():
        kept = size[ranked]
        p[ranked] = (kept >= kept[:, :1] - TIE).mean(axis=1)
        adjusted[ranked] = (kept.max(axis=0) >= kept[:, :1] - TIE).mean(axis=1)
    p_max = float(np.nanmin(adjusted)) if ranked.any() else np.nan
    return LabelPermutation(observed, p, adjusted, p_max, len(orders), 1 / len(orders))


def _orders(sources: int, rng: np.random.Generator, draws: int) -> NDArray[np.intp]:
    if sources <= ALL_ORDERS:
        found = np.array(list(permutations(range(sources))), dtype=np.intp)
        assert len(found) == factorial(sources)
        return found
    drawn = np.argsort(rng.random((draws, sources)), axis=1)
    return np.vstack([np.arange(sources), drawn]).astype(np.intp)
