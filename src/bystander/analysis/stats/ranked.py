"""Predictors ranked once for every outcome over the same personas: their unit ranks and their ranks in every resample.

What is returned is `uncertainty.bootstrap_spearman` and `uncertainty.persona_variance`, which rank anew for every outcome.
"""

from __future__ import annotations

from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from bystander.analysis.stats.intervals import resampling_counts
from bystander.analysis.stats.means import Floats
from bystander.analysis.stats.ranks import unit_ranks
from bystander.analysis.stats.uncertainty import FEW_PERSONAS, below, persona_variance, variance_of_z

KEPT = 6  # sets of predictors that are held: 100 predictors of 108 personas in 1,000 resamples are 43 MB


class RankedPredictors:
    """K predictors [K, personas] with their ranks. `total` personas are drawn, of whom these stand at the places `at`."""

    def __init__(self, predictors: Floats, total: int, at: tuple[int, ...], resamples: int, seed: int) -> None:
        self.predictors, self.resamples, self.seed = predictors, resamples, seed
        self._total, self._at = total, list(at)

    @cached_property
    def unit(self) -> Floats:
        """[K, personas] mid-ranks, centered and of length 1."""
        return unit_ranks(self.predictors)

    @cached_property
    def _counts(self) -> NDArray[np.float32]:
        return resampling_counts(self._total, self.resamples, self.seed)[:, self._at].astype(np.float32)

    @cached_property
    def _resampled(self) -> NDArray[np.float32]:
        """[K, resamples, personas] ranks, by how often each persona is drawn, of length 1."""
        found = np.empty((len(self.predictors), *self._counts.shape), dtype=np.float32)
        middle = (self._counts.sum(axis=1, keepdims=True) + 1) / 2
        with np.errstate(invalid="ignore", divide="ignore"):
            for place, predictor in enumerate(self.predictors):
                ranks = self._counts @ below(predictor) + 0.5 - middle
                weighted = self._counts * ranks
                found[place] = weighted / np.sqrt(np.einsum("bi,bi->b", weighted, ranks))[:, None]
        return found

    def draws(self, outcome: Floats) -> Floats:
        """Spearman's rho in every resample of personas -> [resamples, K]."""
        middle = (self._counts.sum(axis=1, keepdims=True) + 1) / 2
        centered = self._counts @ below(outcome) + 0.5 - middle
        length = np.einsum("bi,bi,bi->b", self._counts, centered, centered)
        rhos = np.matmul(self._resampled.transpose(1, 0, 2), centered[:, :, None])[:, :, 0]
        with np.errstate(invalid="ignore", divide="ignore"):
            return rhos.astype(np.float64) / np.sqrt(length.astype(np.float64))[:, None]

    def persona_variance(self, outcome: Floats) -> Floats:
        """Variance of Fisher's z over personas -> [K]."""
        if outcome.size < FEW_PERSONAS:
            return persona_variance(self.predictors, outcome, self.resamples, self.seed)
        return variance_of_z(self.draws(outcome))


def ranked(predictors: Floats, resamples: int, seed: int, total: int = 0, at: tuple[int, ...] = ()) -> RankedPredictors:
    """The predictors with their ranks; of the last few sets the same object again. Without `total` and `at` all of the
    personas that are drawn."""
    contiguous, n = np.ascontiguousarray(predictors), predictors.shape[1]
    return _kept(contiguous.tobytes(), contiguous.shape, total or n, at or tuple(range(n)), resamples, seed)


@lru_cache(maxsize=KEPT)
def _kept(
    values: bytes, shape: tuple[int, ...], total: int, at: tuple[int, ...], resamples: int, seed: int
) -> RankedPredictors:
    return RankedPredictors(np.frombuffer(values, dtype=np.float64).reshape(shape), total, at, resamples, seed)
