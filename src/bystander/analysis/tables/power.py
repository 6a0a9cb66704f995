"""What a study of this size and noise can find: the smallest effects that its tests see in 80 % of such studies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from bystander.analysis.grid import PairedGrid
from bystander.analysis.keys import DesignRow
from bystander.analysis.predictors import Covariates
from bystander.analysis.settings import AnalysisSettings
from bystander.analysis.stats.intervals import NONE, Estimate, crossed
from bystander.analysis.stats.power import smallest_change, smallest_rho, width_of_mean, width_of_rho
from bystander.analysis.stats.uncertainty import reliability
from bystander.analysis.tables.sample import EVERYTHING, sample_of, source_change, source_estimate

ALPHA, POWER = 0.05, 0.8  # the level and the chance that the table speaks of


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerRow(DesignRow):
    """One row per training, outcome and test: the smallest effect that it finds in 80 % of studies of this size."""

    test: Annotated[str, "similarity correlation, source change or mean bystander change"]
    n: Annotated[int, "personas (similarity correlation, mean bystander change) or questions (source change)"]
    alpha: Annotated[float, "level of the test"]
    power: Annotated[float, "share of studies that find the effect"]
    smallest: Annotated[float, "the smallest such effect: a rho, or a change in the metric's unit"]
    interval_width: Annotated[float, "expected width of the 95 % interval at that effect"]
    reliability: Annotated[float, "share of the variance of leakage over personas that is not error, in [0, 1]"]


def power_rows(grid: PairedGrid, known: Covariates, settings: AnalysisSettings) -> list[PowerRow]:
    """The three tests of one grid, under its measured noise."""
    sample, names, _ = sample_of(grid, known, settings)
    n = len(names)
    share = reliability(sample.over_seeds) if n > 1 else np.nan
    own = source_change(grid, settings)
    source = source_estimate(own, grid.unit) if own is not None else NONE
    bystander = crossed(sample.changes, EVERYTHING) if names else NONE
    rho = smallest_rho(n, ALPHA, POWER, share if share > 0 else 1.0)
    sizes: list[tuple[str, int, float, float]] = [
        ("similarity correlation", n, rho, width_of_rho(n, rho if np.isfinite(rho) else 0.0)),
        ("source change", source.n, *_smallest_and_width(source)),
        ("mean bystander change", n, *_smallest_and_width(bystander)),
    ]
    return [
        PowerRow(
            record=grid.record("power", None, test), training=grid.training, outcome=grid.outcome, test=test, n=count,
            alpha=ALPHA, power=POWER, smallest=smallest, interval_width=width, reliability=share,
        )
        for test, count, smallest, width in sizes
    ]  # fmt: skip


def _smallest_and_width(mean: Estimate) -> tuple[float, float]:
    smallest = smallest_change(mean.standard_error, mean.df, ALPHA, POWER)
    return smallest, width_of_mean(mean.standard_error, mean.df)
