"""What a study of this size can find, before it is run: smallest effects, interval widths, and what a gate decides."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import cast

import numpy as np
from scipy.optimize import brentq

from bystander.analysis.stats.distributions import nct, norm, t
from bystander.analysis.stats.means import Floats
from bystander.analysis.stats.ranks import MIN_PERSONAS, unit_ranks
from bystander.core.hashing import generator

STUDIES = 4_000  # simulated studies: power to within 0.013 (two binomial standard errors at 0.8)


def spearman_of(pearson: float) -> float:
    """Spearman's rho of a bivariate normal with that Pearson correlation (Pearson 1907): 6/pi asin(r/2)."""
    return 6 / math.pi * math.asin(pearson / 2)


def pearson_of(spearman: float) -> float:
    """The inverse of `spearman_of`."""
    return 2 * math.sin(math.pi * spearman / 6)


@lru_cache(maxsize=16)
def _draws(n: int, seed: int) -> tuple[Floats, Floats, Floats]:
    """Simulated similarity, its ranks, and the noise of leakage, each [studies, n]."""
    random = generator("power", n, seed)
    x = random.standard_normal((STUDIES, n))
    return x, unit_ranks(x), random.standard_normal((STUDIES, n))


def _simulated_rho(n: int, pearson: float, seed: int) -> Floats:
    """Spearman's rho in simulated studies of n personas -> [studies]. The same noise for every `pearson`."""
    x, ranks, noise = _draws(n, seed)
    return (ranks * unit_ranks(pearson * x + (1 - pearson**2) ** 0.5 * noise)).sum(axis=1)


@lru_cache(maxsize=64)
def _critical(n: int, alpha: float, seed: int) -> float:
    return float(np.quantile(np.abs(_simulated_rho(n, 0.0, seed)), 1 - alpha)) - 1e-12


@lru_cache(maxsize=256)
def power_of_rho(n: int, rho: float, alpha: float = 0.05, reliability: float = 1.0, seed: int = 0) -> float:
    """Chance that a two-sided test at `alpha` finds a true Spearman correlation `rho` among n personas.

    By simulation: normal scores, leakage measured with `reliability` (1: without error). 0 where not even a perfect
    order is rare enough: of n! orders two are perfect, so that p is never below 2 / n!. NaN for n < 4.
    """
    if n < MIN_PERSONAS:
        return math.nan
    if 2 / math.factorial(n) > alpha:
        return 0.0
    found = _simulated_rho(n, pearson_of(rho) * reliability**0.5, seed)
    return float((np.abs(found) > _critical(n, alpha, seed)).mean())


def smallest_rho(n: int, alpha: float = 0.05, power: float = 0.8, reliability: float = 1.0, seed: int = 0) -> float:
    """The smallest true rho that the test finds with that power; NaN where even rho = 1 is missed, or n < 4.

    Error of measurement makes leakage correlate less by sqrt(reliability), so less true correlation is found.
    """
    pearson = pearson_of(_smallest_measured(n, alpha, power, seed)) / max(reliability, 1e-9) ** 0.5
    return spearman_of(pearson) if pearson < 1 else math.nan


@lru_cache(maxsize=256)
def _smallest_measured(n: int, alpha: float, power: float, seed: int) -> float:
    if n < MIN_PERSONAS or power_of_rho(n, 0.999, alpha, 1.0, seed) < power:
        return math.nan
    low, high = 0.0, 0.999
    while high - low > 0.005:  # finer than the simulation's own error
        middle = (low + high) / 2
        low, high = (low, middle) if power_of_rho(n, middle, alpha, 1.0, seed) >= power else (middle, high)
    return high


def width_of_rho(n: int, rho: float) -> float:
    """Expected width of the 95 % interval of Spearman's rho among n personas (variance of z after Bonett and Wright 2000:
    (1 + rho^2/2) / (n - 3)). NaN for n < 4."""
    if n < MIN_PERSONAS:
        return math.nan
    half = float(norm.ppf(0.975)) * ((1 + rho**2 / 2) / (n - 3)) ** 0.5
    z = math.atanh(max(min(rho, 0.999), -0.999))
    return math.tanh(z + half) - math.tanh(z - half)


def gate_passes(n: int, threshold: float, rho: float, reliability: float = 1.0, seed: int = 0) -> float:
    """Chance that the measured rho among n personas reaches `threshold` when the true one is `rho`. NaN for n < 2.

    At n = 11, threshold 0.2 and rho 0.2 this is about one half: a coin toss.
    """
    if n < 2:
        return math.nan
    return float((_simulated_rho(n, pearson_of(rho) * reliability**0.5, seed) >= threshold).mean())


def smallest_change(standard_error: float, df: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """The smallest true mean that a one-sided t test finds with that power, given the standard error of the mean and its
    degrees of freedom (noncentral t). NaN without an error."""
    if not (standard_error > 0 and df > 0):
        return math.nan
    critical = float(t.ppf(1 - alpha, df))

    def missing(shift: float) -> float:
        return float(nct.sf(critical, df, shift)) - power

    shift = cast("float", brentq(missing, 0.0, critical + 20.0))
    return standard_error * shift


def width_of_mean(standard_error: float, df: float) -> float:
    """Width of the 95 % interval of a mean; NaN without an error."""
    return 2 * float(t.ppf(0.975, df)) * standard_error if standard_error > 0 and df > 0 else math.nan
