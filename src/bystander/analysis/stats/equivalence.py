"""\"No leakage\" as a claim: equivalence by two one-sided tests (Schuirmann 1987), and the smallest bound excluded.

Estimand and resampling units: those of the estimate that is handed in (`intervals.crossed`: questions, personas, seeds).
Level 5 % against a true mean at the bound, on either side. No standard error, as for n = 0 and 1: NaN, and nothing is
excluded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bystander.analysis.stats.distributions import t
from bystander.analysis.stats.intervals import Estimate
from bystander.core.errors import DataError

LEVEL = 0.05  # of each of the two one-sided tests


@dataclass(frozen=True, slots=True)
class Equivalence:
    """What a mean change is shown not to exceed. `p`: larger of the two one-sided p against -bound and +bound."""

    value: float
    bound: float
    p: float
    low: float  # 90 % interval: its ends are what the two tests exclude
    high: float
    smallest: float  # the smallest bound that the data exclude, max(|low|, |high|)

    @property
    def shown(self) -> bool:
        """The mean lies within the bound, at 5 %."""
        return bool(self.p < LEVEL)

    def sentence(self, unit: str = "") -> str:
        """In words, numbers in the unit of the metric."""
        if not np.isfinite(self.p):
            return "nothing is excluded: there is no standard error"
        said = f"a mean change beyond {self.smallest:.3g}{unit} either way is excluded"
        return said if self.shown else f"{said}, one of {self.bound:.3g}{unit} is not"


def equivalence(estimate: Estimate, bound: float) -> Equivalence:
    """Is the mean within (-bound, bound)? Raises DataError for a bound that is not above 0."""
    if not bound > 0:
        raise DataError(f"an equivalence bound must be above 0, not {bound:g}")
    error, df = estimate.standard_error, estimate.df
    if not (np.isfinite(estimate.value) and error > 0 and df > 0):
        return Equivalence(estimate.value, bound, np.nan, np.nan, np.nan, np.nan)
    half = float(t.ppf(1 - LEVEL, df)) * error
    low, high = estimate.value - half, estimate.value + half
    p = max(float(t.sf((estimate.value + bound) / error, df)), float(t.cdf((estimate.value - bound) / error, df)))
    return Equivalence(estimate.value, bound, p, low, high, max(abs(low), abs(high)))
