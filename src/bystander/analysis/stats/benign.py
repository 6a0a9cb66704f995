"""Leakage beyond a benign arm, the deficit to trained negatives, and the test of the largest bystander.

The benign arm is trained on the same rows in the same order, with the source's answered as the negatives' are. What both
trainings teach (the format, the right answers, one level for everybody) is in both and cancels, item by item.

Estimands: each bystander's mean leakage over the populations of questions and of seeds. Resampling units: questions and
seeds, as crossed levels; with one seed the answer is about that pair of trainings. Over bystanders: `intervals.crossed`
of the same differences. The largest of many noisy numbers overstates its own truth, and the mean of them hides a single
one that leaks: every bystander gets a p of its own, corrected after Holm (1979). n = 0: NaN; n = 1: no test.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bystander.analysis.stats.distributions import binom, norm, t
from bystander.analysis.stats.intervals import TAIL, bounded, few_changes
from bystander.analysis.stats.means import mean_of, variance_of
from bystander.analysis.stats.multiplicity import holm
from bystander.core.errors import DataError

Floats = NDArray[np.float64]


def beyond_benign(trained: Floats, benign: Floats, direction: int) -> Floats:
    """What a training did beyond its benign twin, paired by item and seed -> [seeds, personas, questions].

    `trained` and `benign` [seeds, personas, questions] as measured after training, NaN where an item is missing (the pair
    is missing then); `benign` may have one seed that serves all. `direction` 1 or -1: which way the behavior pushes.
    Raises DataError where personas, questions or seeds do not fit.
    """
    if trained.ndim != 3 or benign.shape not in {trained.shape, (1, *trained.shape[1:])}:
        raise DataError(
            f"the benign arm {benign.shape} and the trained one {trained.shape} do not pair by seed and item"
        )
    return direction * (trained - benign)


def deficit(after: Floats, negatives: Floats, direction: int) -> Floats:
    """How much more of the behavior each bystander shows than the personas that were trained not to, on the same items.

    `after` [seeds, personas, questions], `negatives` [seeds, negatives, questions] -> [seeds, personas, questions]. For
    want of a benign arm: it takes out the common level, not what a persona lacked or had before.
    """
    if after.shape[::2] != negatives.shape[::2] or negatives.shape[1] == 0:
        raise DataError(f"negatives {negatives.shape} do not pair with bystanders {after.shape} by seed and item")
    return direction * (after - mean_of(negatives, 1)[:, None])


@dataclass(frozen=True, slots=True)
class PerBystander:
    """Each bystander's leakage with its own tests. All [personas]; p NaN where there is no test."""

    leakage: Floats
    standard_error: Floats
    p: Floats  # one-sided: more of the behavior than the threshold
    p_holm: Floats
    p_below: Floats  # one-sided the other way
    p_below_holm: Floats

    @property
    def largest(self) -> int:
        """Place of the bystander with the largest leakage; -1 for none."""
        known = np.isfinite(self.leakage)
        return int(np.argmax(np.where(known, self.leakage, -np.inf))) if known.any() else -1

    @property
    def p_any(self) -> float:
        """Holm's p that any bystander leaks: the test of the largest. NaN without a test."""
        return float(np.nanmin(self.p_holm)) if np.isfinite(self.p_holm).any() else np.nan


def per_bystander(leakage: Floats, unit: str = "fraction", threshold: float = 0.0) -> PerBystander:
    """Tests of every bystander's leakage against `threshold` -> records over [personas].

    `leakage` [seeds, personas, questions], NaN where an item is missing. One seed, 0/1 answers and threshold 0: McNemar's
    one-sided mid-p (Fagerland et al. 2013). A fraction that adds up to few changes: Agresti and Min's error (2005).
    Otherwise t, with Satterthwaite's degrees of freedom over seeds and questions.
    """
    value, error, df = crossed_by_persona(leakage)
    p_above, p_below = _tails((value - threshold) / np.where(error > 0, error, np.nan), df)
    if leakage.shape[0] == 1 and unit == "fraction" and leakage.shape[2] > 1:
        flat = leakage[0]
        low, high = bounded(flat)
        wide = (high - low) / 2 / norm.ppf(1 - TAIL)
        bounded_above, bounded_below = _tails(((low + high) / 2 - threshold) / wide, np.full(value.shape, np.inf))
        few = few_changes(flat)
        p_above, p_below = np.where(few, bounded_above, p_above), np.where(few, bounded_below, p_below)
        error = np.where(few, wide, error)
        if threshold == 0 and np.isin(flat[np.isfinite(flat)], (-1.0, 0.0, 1.0)).all():
            p_above, p_below = _mid_p(flat)
    return PerBystander(value, error, p_above, holm(p_above), p_below, holm(p_below))


def crossed_by_persona(leakage: Floats) -> tuple[Floats, Floats, Floats]:
    """Mean, standard error and degrees of freedom of each persona over seeds and questions, as `intervals.crossed` has
    them for one, without the loop -> three [personas]."""
    seeds, _, questions = leakage.shape
    value = mean_of(leakage, (0, 2))
    by_seed, by_question = mean_of(leakage, 2), mean_of(leakage, 0)  # [seeds, personas], [personas, questions]
    q_part = variance_of(by_question, 1) / np.maximum(np.isfinite(by_question).sum(axis=1), 1)
    if questions < 2:
        q_part = np.zeros(value.size)
    if seeds < 2:
        return value, np.sqrt(np.where(q_part > 0, q_part, np.nan)), np.full(value.size, float(questions - 1))
    s_part = variance_of(by_seed, 0) / seeds
    total = q_part + s_part
    overlap = np.zeros(value.size)
    if questions > 1:
        left = leakage - by_seed[:, :, None] - by_question + value[:, None]
        overlap = np.nansum(left**2, axis=(0, 2)) / ((seeds - 1) * (questions - 1) * seeds * questions)
    variance = np.maximum(total - overlap, np.maximum(q_part, s_part))
    with np.errstate(invalid="ignore", divide="ignore"):
        df = total**2 / (q_part**2 / max(questions - 1, 1) + s_part**2 / (seeds - 1))
    return value, np.sqrt(np.where(variance > 0, variance, np.nan)), df


def _tails(ratio: Floats, df: Floats) -> tuple[Floats, Floats]:
    with np.errstate(invalid="ignore"):
        return t.sf(ratio, df), t.cdf(ratio, df)


def _mid_p(differences: Floats) -> tuple[Floats, Floats]:
    """One-sided mid-p of McNemar's test for each row of differences in {-1, 0, 1} -> (above 0, below 0); 0.5 each where
    no pair differs, NaN without a pair."""
    up, down = (differences > 0).sum(axis=1), (differences < 0).sum(axis=1)
    n = up + down
    half = 0.5 * binom.pmf(up, n, 0.5)
    above, below = binom.sf(up, n, 0.5) + half, binom.cdf(up, n, 0.5) - half
    some = np.isfinite(differences).any(axis=1)
    return np.where(some, above, np.nan), np.where(some, below, np.nan)
