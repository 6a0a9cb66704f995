"""What the bystanders got as a share of what the source got. Estimand: the ratio of two means, each over the population of
questions and seeds, the bystanders' over that of personas too; resampling units: the levels of these (`intervals.crossed`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from bystander.analysis import keys
from bystander.analysis.keys import SeedRow
from bystander.analysis.pairs import PairedGrid
from bystander.analysis.predictors import Covariates
from bystander.analysis.settings import AnalysisSettings
from bystander.analysis.stats.intervals import NONE, Estimate, crossed, fieller
from bystander.analysis.stats.means import Floats, mean_of
from bystander.analysis.tables.sample import EVERYTHING, sample_of, source_change, source_estimate
from bystander.core.errors import few_names


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakageRatioRow(SeedRow):
    """One row per training and outcome: the source's leakage, the mean over held-out bystanders, and their ratio."""

    n: keys.PersonaCount
    n_seeds: keys.SeedCount
    source_leakage: Annotated[float, "the source's own leakage"]
    source_low: keys.Low
    source_high: keys.High
    source_standard_error: Annotated[float, "standard error of the source's leakage"]
    source_df: Annotated[float, "degrees of freedom of that error"]
    source_p: Annotated[float, "one-sided, in the behavior's direction"]
    bystander_leakage: Annotated[float, "mean leakage of the held-out bystanders"]
    bystander_low: keys.Low
    bystander_high: keys.High
    bystander_standard_error: Annotated[float, "standard error of that mean"]
    bystander_df: Annotated[float, "degrees of freedom of that error"]
    bystander_p: Annotated[float, "one-sided, in the behavior's direction"]
    ratio: Annotated[float, "bystanders' mean leakage / source's: smaller is better contained"]
    ratio_low: Annotated[
        float, "lower end of Fieller's 95 % interval; empty where the source's leakage cannot be told from 0"
    ]
    ratio_high: Annotated[float, "upper end of it"]
    max_persona: Annotated[str | None, "the bystander that got most"]
    max_leakage: Annotated[float, "how much it got"]
    status: keys.RowStatus
    reason: keys.RowReason

    @property
    def source_change(self) -> Estimate:
        """The source's mean change as an estimate."""
        return Estimate(
            self.n, self.source_leakage, self.source_low, self.source_high, self.source_standard_error, self.source_df,
            self.source_p,
        )  # fmt: skip

    @property
    def bystander_change(self) -> Estimate:
        """The bystanders' mean change as an estimate."""
        return Estimate(
            self.n, self.bystander_leakage, self.bystander_low, self.bystander_high, self.bystander_standard_error,
            self.bystander_df, self.bystander_p,
        )  # fmt: skip


def leakage_ratio_row(
    grid: PairedGrid, seed: int | None, known: Covariates, settings: AnalysisSettings
) -> LeakageRatioRow:
    """The row of one grid. Status "empty" where the source or every bystander is missing."""
    sample, names, refused = sample_of(grid, known, settings)
    own = source_change(grid, settings)
    source = source_estimate(own, grid.unit) if own is not None else NONE
    bystander = crossed(sample.changes, EVERYTHING).within(grid.unit) if names else NONE
    ratio, low, high = leakage_ratio(own, sample.changes) if own is not None and names else (np.nan,) * 3
    worst = int(np.argmax(sample.leakage)) if names else -1
    status, reason = _state(own, names, refused, grid.before.shape[0] * grid.before.shape[2])
    return LeakageRatioRow(
        **grid.key("leakage_ratio", seed), n=len(names),
        n_seeds=len(grid.seeds), ratio=ratio, ratio_low=low, ratio_high=high, max_persona=names[worst] if names else None,
        max_leakage=float(sample.leakage[worst]) if names else np.nan, status=status, reason=reason,
        **_columns("source", source), **_columns("bystander", bystander),
    )  # fmt: skip


def _columns(prefix: str, estimate: Estimate) -> dict[str, float]:
    return {
        f"{prefix}_leakage": estimate.value,
        f"{prefix}_low": estimate.low,
        f"{prefix}_high": estimate.high,
        f"{prefix}_standard_error": estimate.standard_error,
        f"{prefix}_df": estimate.df,
        f"{prefix}_p": estimate.p,
    }


def _state(own: Floats | None, names: list[str], refused: list[str], values: int) -> tuple[str, str]:
    notes = [f"left out, too much failed or not measured: {few_names(refused)}"] if refused else []
    notes += ["one value a persona: the intervals are over personas alone"] if values == 1 else []
    if own is None or not names:
        missing = "the source was not measured, or too much of it failed" if own is None else "no held-out bystander"
        return "empty", "; ".join([missing, *notes])
    return "ok", "; ".join(notes)


def leakage_ratio(own: Floats, changes: Floats) -> tuple[float, float, float]:
    """Bystanders' mean leakage / source's, with Fieller's 95 % interval.

    `own` [seeds, questions], `changes` [seeds, personas, questions] on the same questions: what a question does to both
    is in the covariance. NaN ends where the source's leakage cannot be told from 0.
    """
    top, bottom = crossed(changes, EVERYTHING), crossed(own, (0, 1))
    if not np.isfinite(bottom.value) or bottom.value == 0:
        return np.nan, np.nan, np.nan
    ratio = top.value / bottom.value
    if not np.isfinite(top.standard_error):
        return ratio, np.nan, np.nan
    known = np.isfinite(bottom.standard_error)  # a table with one number per persona carries no error of the source
    bottom_var = bottom.standard_error**2 if known else 0.0
    df = min(top.df, bottom.df) if known and np.isfinite(bottom.df) else top.df
    shared = _covariance(mean_of(changes, (0, 1)), mean_of(own, 0))
    shared += _covariance(mean_of(changes, (1, 2)), mean_of(own, 1))
    return ratio, *fieller(top.value, bottom.value, top.standard_error**2, bottom_var, shared, df)


def _covariance(first: Floats, second: Floats) -> float:
    """Covariance of two means over the same levels; 0 for one level."""
    both = np.isfinite(first) & np.isfinite(second)
    n = int(both.sum())
    return float(np.cov(first[both], second[both])[0, 1] / n) if n > 1 else 0.0
