"""Rank correlations and their permutation tests, many predictors at once.

Everything is ranked once. A permutation then only reorders ranks, so that 10,000 permutations against K predictors are
one gather and one matrix product. The permutations of n things are drawn once a process and cached: which ones they are is
decided by (n, groups, count, seed) alone.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bystander.analysis.stats.distributions import rankdata
from bystander.analysis.stats.means import Floats
from bystander.core.hashing import generator

Ints = NDArray[np.intp]
TIE = 1e-9  # correlations closer than this are ties: sums of one set of products differ by 1e-15 with their order
MIN_PERSONAS = 4  # below it no permutation test can reach p < 0.05 two-sided


def unit_ranks(values: Floats) -> Floats:
    """Mid-ranks along the last axis, centered and of length 1, so that a product of two is Spearman's rho.

    `values` [..., n]. NaN throughout where all n values are equal or n < 2: there is no correlation with a constant.
    """
    if values.shape[-1] == 0:
        return np.zeros(values.shape)
    return unit(rankdata(values, axis=-1))


def unit(values: Floats) -> Floats:
    """Centered along the last axis and of length 1; NaN where there is no variation."""
    centered = values - values.mean(axis=-1, keepdims=True)
    length = np.linalg.norm(centered, axis=-1, keepdims=True)
    scale = np.maximum(np.abs(values).max(axis=-1, keepdims=True), 1e-300)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(length > 1e-12 * scale, centered / length, np.nan)


def spearman(predictors: Floats, outcome: Floats) -> Floats:
    """Spearman's rho of each predictor [K, n] with the outcome [n] -> [K]. NaN for n < 2 or a constant."""
    if outcome.size < 2:
        return np.full(len(predictors), np.nan)
    return unit_ranks(predictors) @ unit_ranks(outcome)


@lru_cache(maxsize=24)
def permutations(n: int, count: int, seed: int, groups: tuple[int, ...] | None = None) -> Ints:
    """`count` random permutations of range(n) -> [count, n], read-only; within groups where `groups` [n] is given."""
    random = generator("permutations", n, count, seed, list(groups or ())).random((count, n), dtype=np.float32)
    if groups is None:
        drawn = np.argsort(random, axis=1)
    else:
        group = np.asarray(groups)
        order = np.argsort(group, kind="stable")
        drawn = np.empty((count, n), dtype=np.intp)
        drawn[:, order] = np.argsort(
            random + group.astype(np.float32), axis=1
        )  # random is under 1: groups stay together
    drawn.flags.writeable = False
    return drawn


def codes(labels: tuple[str, ...] | list[str]) -> tuple[int, ...]:
    """Labels as small integers in order of first appearance."""
    seen: dict[str, int] = {}
    return tuple(seen.setdefault(label, len(seen)) for label in labels)


def p_two_sided(observed: Floats, permuted: Floats) -> Floats:
    """(1 + number at least as extreme) / (1 + count): never 0, and exact for random permutations
    (Phipson and Smyth 2010). `observed` [K], `permuted` [count, K] -> [K]; NaN where observed is."""
    extreme = (np.abs(permuted) >= np.abs(observed) - TIE).sum(axis=0)
    p = (1.0 + extreme) / (1.0 + len(permuted))
    return np.where(np.isfinite(observed), p, np.nan)


def permutation_p(predictors: Floats, outcome: Floats, count: int, seed: int) -> Floats:
    """Two-sided p of Spearman's rho for each predictor [K, n] against the outcome [n], personas permuted -> [K].

    Null: similarity says nothing of leakage, personas being exchangeable. NaN for fewer than 4 personas.
    """
    if outcome.size < MIN_PERSONAS:
        return np.full(len(predictors), np.nan)
    x, y = unit_ranks(predictors), unit_ranks(outcome)
    return p_two_sided(x @ y, y[permutations(outcome.size, count, seed)] @ x.T)


def centered_within(values: Floats, groups: tuple[int, ...]) -> Floats:
    """Values [..., n] minus the mean of their group."""
    group = np.asarray(groups)
    member = np.eye(group.max() + 1)[group]  # [n, groups]
    return values - (values @ member / member.sum(axis=0)) @ member.T


def within_category(
    predictors: Floats, outcome: Floats, labels: list[str], count: int, seed: int
) -> tuple[Floats, Floats]:
    """The gradient that is left inside categories: correlation of ranks centered within category, and its p, personas
    permuted within category only -> ([K], [K]).

    Whatever differs between categories stays in place under these permutations, so clusters alone cannot carry it.
    NaN where no category holds two personas that differ, or for fewer than 4 personas.
    """
    if outcome.size < MIN_PERSONAS:
        return np.full(len(predictors), np.nan), np.full(len(predictors), np.nan)
    groups = codes(labels)
    x = unit(centered_within(rankdata(predictors, axis=-1), groups))
    y = unit(centered_within(rankdata(outcome), groups))
    rho = x @ y
    return rho, p_two_sided(rho, y[permutations(outcome.size, count, seed, groups)] @ x.T)


def design(covariates: Floats) -> Floats:
    """Orthonormal basis [n, k] of the intercept and the covariates [c, n]; collinear ones are dropped."""
    full = np.vstack([np.ones(covariates.shape[-1]), unit(covariates)[np.isfinite(unit(covariates)).all(axis=-1)]]).T
    left, size, _ = np.linalg.svd(full, full_matrices=False)
    return left[:, size > 1e-9 * size[0]]


def indicators(labels: list[str]) -> Floats:
    """One row per category [c, n], 1 where the persona is in it."""
    group = np.asarray(codes(labels))
    return np.eye(group.max() + 1)[group].T if group.size else np.zeros((0, 0))


def partial_spearman(
    predictors: Floats, outcome: Floats, covariates: Floats, count: int, seed: int
) -> tuple[Floats, Floats]:
    """Partial rank correlation given covariates [c, n], and its two-sided p -> ([K], [K]).

    Predictors, outcome and covariates enter as ranks, except 0/1 indicators, whose ranks say the same. p after Freedman
    and Lane (1983): the outcome's residuals are permuted, given back what the covariates explain, and made residual
    anew. NaN with fewer than 4 personas beyond the covariates.
    """
    nothing = np.full(len(predictors), np.nan)
    if outcome.size < MIN_PERSONAS:
        return nothing, nothing.copy()
    basis = design(rankdata(covariates, axis=-1))
    if outcome.size - basis.shape[1] < MIN_PERSONAS - 1:
        return nothing, nothing.copy()
    x = unit(_residual(rankdata(predictors, axis=-1), basis))
    y = unit(_residual(rankdata(outcome), basis))
    rho = x @ y
    shuffled = y[permutations(outcome.size, count, seed)]
    length = np.sqrt(np.clip(1.0 - ((shuffled @ basis) ** 2).sum(axis=1), 1e-12, None))
    return rho, p_two_sided(rho, shuffled @ x.T / length[:, None])


def _residual(values: Floats, basis: Floats) -> Floats:
    left = values - (values @ basis) @ basis.T
    tiny = np.linalg.norm(left, axis=-1, keepdims=True) < 1e-9 * np.linalg.norm(values, axis=-1, keepdims=True)
    return np.where(tiny, 0.0, left)  # wholly explained by the covariates: constant, not rounding noise
