"""Predictors ranked once for every outcome over the same personas: their unit ranks and their ranks in every resample.

What is returned is `uncertainty.persona_variance`, to the last digit that float32 holds (tests/reference).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bystander.analysis.stats.intervals import resampling_counts
from bystander.analysis.stats.means import Floats
from bystander.analysis.stats.ranks import unit_ranks
from bystander.analysis.stats.uncertainty import FEW_PERSONAS, below, persona_variance, variance_of_z

KEPT = 2  # sets of predictors whose ranks are held: 160 predictors of 108 personas in 1,000 resamples are 70 MB


class RankedPredictors:
    """K predictors [K, personas] with their ranks. Made by `ranked`, which keeps the last few."""

    def __init__(self, predictors: Floats, resamples: int, seed: int) -> None:
        self.predictors, self.resamples, self.seed = predictors, resamples, seed
        self.unit = unit_ranks(predictors)
        self._resampled: NDArray[np.float32] | None = None

    def persona_variance(self, outcome: Floats) -> Floats:
        """Variance of Fisher's z over personas -> [K], as `uncertainty.persona_variance`."""
        if outcome.size < FEW_PERSONAS:
            return persona_variance(self.predictors, outcome, self.resamples, self.seed)
        counts = resampling_counts(outcome.size, self.resamples, self.seed).astype(np.float32)
        if self._resampled is None:
            self._resampled = np.stack([self._ranks(predictor, counts) for predictor in self.predictors])
        middle = (outcome.size + 1) / 2
        centered = counts @ below(outcome) + np.float32(0.5 - middle)
        length = np.einsum("bi,bi,bi->b", counts, centered, centered)
        rhos = np.einsum("kbi,bi->bk", self._resampled, centered, optimize=False)
        with np.errstate(invalid="ignore", divide="ignore"):
            return variance_of_z(rhos.astype(np.float64) / np.sqrt(length.astype(np.float64))[:, None])

    def _ranks(self, predictor: Floats, counts: NDArray[np.float32]) -> NDArray[np.float32]:
        """[resamples, personas] centered ranks in every resample, by how often each persona is in it, of length 1."""
        ranks = counts @ below(predictor) + np.float32(0.5 - (predictor.size + 1) / 2)
        weighted = counts * ranks
        with np.errstate(invalid="ignore", divide="ignore"):
            return weighted / np.sqrt(np.einsum("bi,bi->b", weighted, ranks))[:, None]


def ranked(predictors: Floats, resamples: int, seed: int) -> RankedPredictors:
    """The predictors with their ranks; of the last few sets the same object again."""
    contiguous = np.ascontiguousarray(predictors)
    return _kept(contiguous.tobytes(), contiguous.shape, resamples, seed)


@lru_cache(maxsize=KEPT)
def _kept(values: bytes, shape: tuple[int, ...], resamples: int, seed: int) -> RankedPredictors:
    return RankedPredictors(np.frombuffer(values, dtype=np.float64).reshape(shape), resamples, seed)
