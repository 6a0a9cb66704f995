"""A line with two crossed random effects by restricted maximum likelihood: y = a + b x + u[source] + v[persona] + error.

Estimand: the slope b over the populations of sources and personas. The deviance is profiled over a, b and the error's
variance (Bates, Maechler, Bolker and Walker 2015, section 3.4), which leaves the two effects' standard deviations over the
error's: a search in two dimensions, where 0 is an answer. Wald interval from the normal. Too few values, or an x that does
not vary: NaN with a reason.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import ndtr, ndtri

from bystander.analysis.stats.intervals import TAIL
from bystander.analysis.stats.means import Floats

FEWEST = 4
FARTHEST = 100.0  # an effect's standard deviation over the error's: nothing is left of the error there
STARTS = ((1.0, 1.0), (0.1, 1.0), (1.0, 0.1), (0.1, 0.1))


@dataclass(frozen=True, slots=True)
class Slope:
    """The slope with its Wald interval and two-sided p; NaN where `reason` is not empty."""

    value: float
    low: float
    high: float
    p: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Fit:
    deviance: float
    slope: float
    error: float


def crossed_slope(y: Floats, x: Floats, sources: NDArray[np.intp], personas: NDArray[np.intp]) -> Slope:
    """The slope of y [n] on x [n], both finite; `sources` and `personas` [n] number the levels from 0."""
    if y.size < FEWEST or np.ptp(x) == 0 or np.ptp(y) == 0:
        return Slope(np.nan, np.nan, np.nan, np.nan, "too few values, or all alike")
    moments = _Moments(y, x, sources, personas)
    bounds = [(0.0, FARTHEST)] * 2
    found = [
        minimize(lambda theta: moments.fit(theta).deviance, start, method="L-BFGS-B", bounds=bounds) for start in STARTS
    ]
    best = min(found, key=lambda one: float(one.fun))
    fit = moments.fit(np.asarray(best.x, dtype=float))
    if not np.isfinite([fit.deviance, fit.slope, fit.error]).all() or fit.error <= 0:
        return Slope(np.nan, np.nan, np.nan, np.nan, "the mixed model could not be fitted")
    half = float(ndtri(1 - TAIL)) * fit.error
    p = 2 * float(ndtr(-abs(fit.slope) / fit.error))
    return Slope(fit.slope, fit.slope - half, fit.slope + half, p)


class _Moments:
    """Products of the effects' indicators Z [n, q], of X = (1, x) and of y, from which every deviance follows."""

    def __init__(self, y: Floats, x: Floats, sources: NDArray[np.intp], personas: NDArray[np.intp]) -> None:
        self._sizes = int(sources.max()) + 1, int(personas.max()) + 1
        z = np.hstack([np.eye(self._sizes[0])[sources], np.eye(self._sizes[1])[personas]])
        fixed = np.stack([np.ones_like(x), x, y], axis=1)
        self._n = y.size
        self._zz, self._zf, self._ff = z.T @ z, z.T @ fixed, fixed.T @ fixed

    def fit(self, theta: Floats) -> _Fit:
        """REML deviance, slope and its standard error where the effects' standard deviations are `theta` times the error's."""
        scale = np.repeat(theta, self._sizes)
        inner = np.linalg.cholesky(scale[:, None] * self._zz * scale + np.eye(scale.size))
        explained = np.linalg.solve(inner, scale[:, None] * self._zf)
        left = self._ff - explained.T @ explained
        xx, xy, yy = left[:2, :2], left[:2, 2], left[2, 2]
        slope = np.linalg.solve(xx, xy)
        freedom = self._n - 2
        variance = float(yy - xy @ slope) / freedom
        deviance = 2 * float(np.log(np.diag(inner)).sum()) + float(np.linalg.slogdet(xx)[1])
        deviance += freedom * float(np.log(2 * np.pi * max(variance, 1e-300)) + 1)
        return _Fit(deviance, float(slope[1]), float(np.sqrt(variance * np.linalg.inv(xx)[1, 1])))
