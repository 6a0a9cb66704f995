"""Bystanders against the source over checkpoints: the dose curve, its area, and comparisons at matched dose.

A training that goes further moves bystanders further, whatever else it does. The dose is the source's own leakage; the
curve shows the bystanders' at each dose, from (0, 0) over the checkpoints. Where the source stands below an earlier
checkpoint the two are averaged, for source and bystanders alike (isotonic regression), and counted in `turned_back`:
passing over the lower one would pick the noise that lies high.

Estimands over the populations of questions, personas and seeds. Resampling units: those three, as crossed levels: the
number is linearized in the means that it is made of, and the error is that of a mean (`intervals.crossed`). One level of
an axis: the answer is about that level. A source that never gains: NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import trapezoid
from scipy.interpolate import pchip_interpolate
from scipy.optimize import isotonic_regression

from bystander.analysis.stats.distributions import t
from bystander.analysis.stats.finite import require_finite, require_shape
from bystander.analysis.stats.intervals import NONE, TAIL, crossed
from bystander.analysis.stats.means import mean_of
from bystander.core.errors import DataError

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DoseCurve:
    """Mean bystander leakage at each dose."""

    dose: Floats  # [points] the source's leakage, rising from 0
    bystanders: Floats  # [points]
    turned_back: int  # checkpoints that were put together with another, or lay below 0
    area: float  # under the curve, over that of a bystander who does as the source does: 0 contained, 1 follows


@dataclass(frozen=True, slots=True)
class WithInterval:
    """A number with its 95 % interval and its two-sided p against 0."""

    value: float
    low: float
    high: float
    p: float


def dose_curve(source: Floats, bystanders: Floats) -> DoseCurve:
    """The curve from leakage at checkpoints in order: `source` [checkpoints], `bystanders` [checkpoints], the untrained
    model left out. Raises DataError for NaN or shapes that do not fit."""
    if source.shape != bystanders.shape or source.ndim != 1:
        raise DataError(
            f"a dose curve needs source {source.shape} and bystanders {bystanders.shape} over the same checkpoints"
        )
    require_finite(source=source, bystanders=bystanders)
    blocks = isotonic_regression(source).blocks
    dose, leakage = (
        np.append(0.0, np.add.reduceat(part, blocks[:-1]) / np.diff(blocks)) for part in (source, bystanders)
    )
    kept = np.append(True, dose[1:] > 0)  # below where it started there is no dose
    dose, leakage = dose[kept], leakage[kept]
    most = dose[-1]
    area = float(trapezoid(leakage, dose) / (most**2 / 2)) if most > 0 else np.nan
    return DoseCurve(dose, leakage, source.size + 1 - dose.size, area)


def at_dose(curve: DoseCurve, dose: float) -> float:
    """Bystanders' leakage when the source first had this much, by monotone cubic pieces (Fritsch and Carlson 1980): a straight
    line between checkpoints lies above a curve that bends upwards, and further above where they are further apart. NaN
    where the source never had so much."""
    if not 0 <= dose <= curve.dose[-1]:
        return float("nan")
    if curve.dose.size == 1:
        return float(curve.bystanders[0])
    found: Floats = np.asarray(pchip_interpolate(curve.dose, curve.bystanders, np.array([dose])))
    return float(found[0])


@dataclass(frozen=True, slots=True)
class Course:
    """Leakage over checkpoints in order, the untrained model left out; on the same questions, NaN where one is missing."""

    source: Floats  # [seeds, checkpoints, questions]
    bystanders: Floats  # [seeds, checkpoints, personas, questions]

    def __post_init__(self) -> None:
        seeds, checkpoints, _, questions = self.bystanders.shape
        require_shape((seeds, checkpoints, questions), source=self.source)

    @property
    def means(self) -> Floats:
        """[2, checkpoints]: the source's and the bystanders' mean leakage."""
        return np.stack([mean_of(self.source, (0, 2)), mean_of(self.bystanders, (0, 2, 3))])


def area_interval(course: Course) -> WithInterval:
    """Area under the dose curve with its interval; its p is against 0, no leakage at any dose."""

    def area(means: Floats) -> float:
        return dose_curve(means[0], means[1]).area

    return _with_interval(area(course.means), _linearized(area, course))


def matched_dose(first: Course, second: Course, dose: float) -> WithInterval:
    """Difference (first less second) of the bystanders' leakage at the same dose of the source.

    Two arms, sources or recipes, measured on the same personas and questions under as many seeds. NaN where one never
    reached the dose: that is said, not extrapolated. Raises DataError for personas, questions or seeds that do not fit.
    """
    if first.bystanders.shape[::2] != second.bystanders.shape[::2] or first.source.shape[2] != second.source.shape[2]:
        raise DataError(
            "a comparison at matched dose needs the same personas, questions and number of seeds on both sides"
        )

    def leakage(means: Floats) -> float:
        return at_dose(dose_curve(means[0], means[1]), dose)

    value = leakage(first.means) - leakage(second.means)
    return _with_interval(value, _linearized(leakage, first) - _linearized(leakage, second))


def _linearized(number: Callable[[Floats], float], course: Course) -> Floats:
    """[seeds, personas, questions] whose mean errs as `number` of the course's means does: the delta method, with central
    differences of a thousandth of the largest mean."""
    means = course.means
    step = 1e-3 * max(float(np.abs(means).max()), 1e-12)
    slopes = np.zeros(means.shape)
    for place in np.ndindex(means.shape):
        moved = np.zeros(means.shape)
        moved[place] = step
        slopes[place] = (number(means + moved) - number(means - moved)) / (2 * step)
    own = np.einsum("c,scq->sq", slopes[0], course.source)
    return own[:, None] + np.einsum("c,scpq->spq", slopes[1], course.bystanders)


def _with_interval(value: float, parts: Floats) -> WithInterval:
    estimate = crossed(parts, (0, 1, 2)) if np.isfinite(value) else NONE
    error = estimate.standard_error
    if not error > 0:
        return WithInterval(value, np.nan, np.nan, np.nan)
    half = float(t.ppf(1 - TAIL, estimate.df)) * error
    return WithInterval(value, value - half, value + half, float(2 * t.sf(abs(value) / error, estimate.df)))
