"""The interval of a rank correlation over personas whose leakage was measured on shared questions.

Two estimands, both over the population that the personas were drawn from:
- *as measured*: the rank correlation of similarity with leakage as a question set of this size measures it;
- *corrected*: the same with error-free leakage, rho / sqrt(reliability) (Spearman 1904).

Variance, on the Fisher scale z = atanh(rho), is the sum of
- persona: bootstrap over personas (jackknife below 20). Each carries its own measurement error with it;
- question: what questions shared by all personas add beyond that error: variance of z when questions are resampled
  for all personas together, less the variance when every persona gets an error of its own of the same size;
- seed: variance of z between seeds over their number, where there are two or more.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bystander.analysis.stats.distributions import rankdata, t
from bystander.analysis.stats.intervals import TAIL, resampled_means, resampling_counts
from bystander.analysis.stats.means import Floats, mean_of, variance_of
from bystander.analysis.stats.ranks import unit, unit_ranks
from bystander.core.hashing import generator

MIN_RELIABILITY = (
    0.5  # below it the correction more than doubles the squared error, and docs/calibration.md has no level
)
FEW_PERSONAS = 20  # docs/calibration.md: where the bootstrap over personas starts to keep its level
NEAR_ONE = 0.999  # |rho| of a resample is clipped here: atanh(1) is infinite, and small resamples reach 1


@dataclass(frozen=True)
class Intervals:
    """Ends of the 95 % interval for K predictors, as measured."""

    low: Floats
    high: Floats


def atanh(rho: Floats) -> Floats:
    """Fisher's z, |rho| clipped to 0.999."""
    return np.arctanh(np.clip(rho, -NEAR_ONE, NEAR_ONE))


def bootstrap_spearman(predictors: Floats, outcome: Floats, counts: Floats) -> Floats:
    """Spearman's rho in every resample of personas -> [resamples, K].

    `counts` [resamples, n]: how often each persona is in the resample. A resample's mid-rank of persona i is the number
    of its members below i, plus half of those equal to i, plus a half: one matrix product, no sorting.
    """
    weights = counts.astype(np.float32)
    middle = (weights.sum(axis=1, keepdims=True) + 1) / 2
    centered = weights @ below(outcome) + 0.5 - middle
    weighted = weights * centered
    length = np.einsum("bi,bi->b", weighted, centered)
    rhos = np.empty((len(counts), len(predictors)))
    for index, predictor in enumerate(predictors):
        ranks = weights @ below(predictor) + 0.5 - middle
        own = np.einsum("bi,bi,bi->b", weights, ranks, ranks)
        with np.errstate(invalid="ignore", divide="ignore"):
            rhos[:, index] = np.einsum("bi,bi->b", weighted, ranks) / np.sqrt(own * length)
    return rhos


def below(values: Floats) -> NDArray[np.float32]:
    """[n, n]: entry (j, i) is 1 where j is below i, a half where they are equal."""
    return ((values[:, None] < values) + 0.5 * (values[:, None] == values)).astype(np.float32)


def jackknife_spearman(predictors: Floats, outcome: Floats) -> Floats:
    """Spearman's rho without each persona in turn -> [n, K]. Leaving out j lowers the rank of all above it by one."""
    others = ~np.eye(outcome.size, dtype=bool)

    def without(values: Floats) -> Floats:
        ranks = rankdata(values) - below(values)
        return unit(ranks[others].reshape(outcome.size, -1))

    y = without(outcome)
    return np.stack([(without(predictor) * y).sum(axis=1) for predictor in predictors], axis=1)


def persona_variance(predictors: Floats, outcome: Floats, resamples: int, seed: int) -> Floats:
    """Variance of z over personas -> [K]: bootstrap from 20 personas on, delete-one jackknife below.

    Of 11 personas the bootstrap makes intervals that cover 99 %: some resamples hold few that differ (docs/calibration.md).
    """
    if outcome.size < FEW_PERSONAS:
        z = atanh(jackknife_spearman(predictors, outcome))
        return (outcome.size - 1) ** 2 / outcome.size * variance_of(z, 0)
    return variance_of_z(bootstrap_spearman(predictors, outcome, resampling_counts(outcome.size, resamples, seed)))


def variance_of_z(rhos: Floats) -> Floats:
    """Variance of Fisher's z over resamples [resamples, K] -> [K]."""
    return variance_of(atanh(rhos), 0)


def question_draws(
    predictors: Floats, changes: Floats, resamples: int, seed: int, stream: str = ""
) -> tuple[Floats, Floats] | None:
    """Rho when questions are resampled for all personas together, and when each persona gets an error of its own of the
    same size -> ([resamples, K], [resamples, K]). None for fewer than two questions: nothing is known of them.

    Grids with the same number of questions draw the same questions; `stream` names the draws of own errors.
    """
    if changes.shape[1] < 2 or changes.shape[0] < 2:
        return None
    x = unit_ranks(predictors)
    together = resampled_means(changes, resamples, seed)
    random = generator("own errors", resamples, changes.shape[0], seed, stream)
    apart = mean_of(changes, 1) + measurement_error(changes) * random.standard_normal(together.shape)
    return unit_ranks(together) @ x.T, unit_ranks(apart) @ x.T


def shared_variance(draws: tuple[Floats, Floats] | None, predictors: int, scale: float) -> Floats:
    """What shared questions add to the variance of z -> [K]. `scale` from `resampling_scale`."""
    if draws is None:
        return np.zeros(predictors)
    together, apart = (variance_of(atanh(part), 0) for part in draws)
    return scale * np.maximum(together - apart, 0.0)


def resampling_scale(questions: int, reliability: float) -> float:
    """By how much resampled questions understate what questions add: n / (n - 1), as every bootstrap of n; and 2 -
    reliability, for a resample carries the error of measurement twice (its own and the study's), which flattens rho."""
    if questions < 2:
        return 0.0
    return questions / (questions - 1) * (2 - reliability if np.isfinite(reliability) else 1.0)


def measurement_error(changes: Floats) -> Floats:
    """Standard error of each persona's leakage [personas], what moves all personas alike on a question taken out."""
    own = changes - mean_of(changes, 0)
    counted = np.isfinite(changes).sum(axis=1)
    return np.sqrt(variance_of(own, 1) / np.maximum(counted, 1))


def reliability(changes: Floats) -> float:
    """Share of the variance of leakage over personas that is not measurement error, clipped to [0, 1].

    Cronbach's alpha (1951) of `changes` [personas, questions] with the questions as its items. NaN for fewer than two
    personas or questions, or without variation.
    """
    personas, questions = changes.shape
    if personas < 2 or questions < 2:
        return float("nan")
    variance = float(variance_of(mean_of(changes, 1), 0))
    if not variance > 0:
        return float("nan")
    error = float(mean_of(measurement_error(changes) ** 2)) * personas / (personas - 1)
    return float(np.clip(1 - error / variance, 0, 1))


def intervals(rho: Floats, variances: list[tuple[Floats, float]]) -> Intervals:
    """95 % interval on the Fisher scale from variance parts [K], each with its degrees of freedom (Satterthwaite)."""
    total = np.sum([part for part, _ in variances], axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        df = total**2 / np.sum([part**2 / max(freedom, 1e-9) for part, freedom in variances], axis=0)
    half = t.ppf(1 - TAIL, df) * np.sqrt(total)
    z = atanh(rho)
    return Intervals(np.tanh(z - half), np.tanh(z + half))


def seed_rhos(predictors: Floats, by_seed: Floats) -> Floats:
    """Rho of every seed -> [seeds, K]; `by_seed` [seeds, personas] leakage."""
    return unit_ranks(by_seed) @ unit_ranks(predictors).T


def seed_variance(rhos: Floats) -> Floats:
    """Variance of the mean z over seeds, from rho by seed [seeds, K] -> [K]; zeros for one seed."""
    if len(rhos) < 2:
        return np.zeros(rhos.shape[1])
    return np.nan_to_num(variance_of(atanh(rhos), 0) / len(rhos))
