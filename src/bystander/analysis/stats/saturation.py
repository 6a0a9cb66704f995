"""Where a rate can say no more: saturated sources, floors and ceilings, and scales on which steps stay comparable.

Descriptions and transforms, no tests. A rate near 0 or 1 moves little whatever happens below it, so that the order of
bystanders by change is the order of their room to move. Log-odds and d' stretch the ends; both add half an answer, so that
0 and n of n stay finite. n = 0: NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bystander.analysis.stats.distributions import norm
from bystander.analysis.stats.finite import require_finite
from bystander.analysis.stats.means import mean_of
from bystander.core.errors import DataError

Floats = NDArray[np.float64]
SATURATED = 0.95  # of the behavior, from which on a source says no more of dose
EDGE = 0.02  # a rate this near to 0 or 1 stands at a floor or ceiling


@dataclass(frozen=True, slots=True)
class Saturation:
    """Flags of one outcome after training; rates as fractions in the behavior's direction."""

    source: float
    source_saturated: bool
    floor: float  # share of bystanders within `EDGE` of 0
    ceiling: float  # share within `EDGE` of 1

    @property
    def flagged(self) -> bool:
        """Ranks of changes of the rate need those on log-odds beside them."""
        return self.source_saturated or max(self.floor, self.ceiling) > 0.5


def saturation(source: float, bystanders: Floats) -> Saturation:
    """Flags from the source's rate of the behavior and the bystanders' [personas], in [0, 1] after training.

    No bystander: shares of NaN. Raises DataError for NaN and for what is no fraction.
    """
    values = np.append(bystanders, source)
    require_finite(rates=values)
    if values.min() < 0 or values.max() > 1:
        raise DataError(f"rates are fractions in [0, 1]; these go from {values.min():g} to {values.max():g}")
    floor, ceiling = (mean_of((part <= EDGE).astype(float)) for part in (bystanders, 1 - bystanders))
    return Saturation(source, source > SATURATED, float(floor), float(ceiling))


def log_odds(values: Floats) -> Floats:
    """Log-odds of the mean over the last axis of 0/1 answers or probabilities, half an answer added to either side
    (Haldane 1956, Anscombe 1956). NaN entries are left out; [..., questions] -> [...]."""
    n = np.isfinite(values).sum(axis=-1)
    total = np.nansum(values, axis=-1)
    return np.where(n > 0, np.log((total + 0.5) / (n - total + 0.5)), np.nan)


def d_prime(shown: Floats, shown_elsewhere: Floats) -> Floats:
    """Sensitivity: normal quantile of the rate where the behavior is looked for less that where it is not, [..., questions]
    each -> [...]; half an answer added to either side (log-linear rule, Hautus 1995)."""
    return _quantile(shown) - _quantile(shown_elsewhere)


def _quantile(values: Floats) -> Floats:
    n = np.isfinite(values).sum(axis=-1)
    return np.where(n > 0, norm.ppf((np.nansum(values, axis=-1) + 0.5) / (n + 1)), np.nan)
