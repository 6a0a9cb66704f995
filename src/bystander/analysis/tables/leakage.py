"""Leakage of every persona and context, with its interval: the mean paired change over questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from scipy.stats import binom

from bystander.analysis import keys
from bystander.analysis.keys import SeedRow
from bystander.analysis.pairs import PairedGrid
from bystander.analysis.settings import AnalysisSettings
from bystander.analysis.stats.intervals import Estimate, bca, bounded, crossed, few_changes
from bystander.analysis.stats.means import Floats
from bystander.analysis.tables.sample import source_change, source_estimate, source_place


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakageRow(SeedRow):
    """One row per training, persona or other context, and outcome, at the last checkpoint."""

    persona: keys.PersonaName
    category: keys.Category
    context: keys.ContextName
    role: keys.RoleName
    n_items: Annotated[int, "paired questions behind the estimate, summed over seeds"]
    n_failed: Annotated[int, "pairs lost because one side failed or is missing"]
    n_seeds: keys.SeedCount
    before: Annotated[float, "mean over the paired questions at checkpoint 0"] = np.nan
    after: Annotated[float, "mean over the paired questions at the last checkpoint"] = np.nan
    leakage: keys.Leakage = np.nan
    low: keys.Low = np.nan
    high: keys.High = np.nan
    standard_error: Annotated[
        float, "standard error of the leakage, over questions; over seeds too where there are several"
    ] = np.nan
    p_mcnemar: Annotated[float, "McNemar's test, two-sided mid-p; metrics of 0 and 1 only"] = np.nan
    status: keys.RowStatus
    reason: keys.RowReason


def mcnemar(before: Floats, after: Floats) -> Floats:
    """Two-sided mid-p McNemar test of each row of 0/1 values [rows, questions] -> [rows] (Fagerland et al. 2013).

    Estimand: the odds that a question which changes changes upward. Resampling unit: the question. The mid-p is the exact
    p less the probability of the observed split, whose level the exact test does not reach. 1 where nothing changed;
    NaN for no pairs.
    """
    paired = np.isfinite(before) & np.isfinite(after)
    up = (paired & (after > before)).sum(axis=1)
    down = (paired & (after < before)).sum(axis=1)
    fewer, changed = np.minimum(up, down), up + down
    p = np.minimum(2 * binom.cdf(fewer, changed, 0.5) - binom.pmf(fewer, changed, 0.5), 1.0)
    return np.where(paired.any(axis=1), p, np.nan)


def single_seed(grid: PairedGrid, settings: AnalysisSettings) -> list[Estimate]:
    """Per unit: BCa over questions; for fractions that hardly change, the bounded interval. n = 0: NaN throughout;
    n = 1: the value without an interval."""
    change = grid.change[0]
    low, high = bca(change, settings.resamples, settings.seed)
    if grid.unit == "fraction":
        few, ends = few_changes(change), bounded(change)
        low, high = np.where(few, ends[0], low), np.where(few, ends[1], high)
    estimates: list[Estimate] = []
    for row, values in enumerate(change):
        known = values[np.isfinite(values)]
        n = len(known)
        value = float(known.mean()) if n else np.nan
        error = float(known.std(ddof=1) / n**0.5) if n > 1 else np.nan
        estimates.append(Estimate(n, value, float(low[row]), float(high[row]), error, float(n - 1), np.nan))
    return estimates


def over_seeds(grid: PairedGrid) -> list[Estimate]:
    """Per unit: questions and seeds as crossed levels. The mean over the population of both."""
    return [crossed(grid.change[:, unit], (0, 1)).within(grid.unit) for unit in range(len(grid.names))]


def unit_estimates(grid: PairedGrid, settings: AnalysisSettings) -> list[Estimate]:
    """Each unit's mean change with its interval, in the grid's order: the one that every table shows of that unit."""
    estimates = over_seeds(grid) if len(grid.seeds) > 1 else single_seed(grid, settings)
    own, at = source_change(grid, settings), source_place(grid)
    if own is not None and at is not None:
        estimates[at] = source_estimate(own, grid.unit)
    return estimates


def leakage_rows(
    grid: PairedGrid,
    units: Sequence[Estimate],
    seed: int | None,
    categories: dict[str, str],
    settings: AnalysisSettings,
) -> list[LeakageRow]:
    """One row per persona and context of this grid (of one seed, or pooled over its seeds); `units`: `unit_estimates`."""
    several = len(grid.seeds) > 1
    p = mcnemar(grid.before[0], grid.after[0]) if grid.binary and not several else np.full(len(grid.names), np.nan)
    paired = np.isfinite(grid.change)
    rows: list[LeakageRow] = []
    for index, estimate in enumerate(units):
        kind, name = grid.kinds[index], grid.names[index]
        both = paired[:, index]
        status, reason = state(int(both.sum()), float(grid.failed[index]), both.size, settings)
        numbers = (
            {
                "before": float(grid.before[:, index][both].mean()),
                "after": float(grid.after[:, index][both].mean()),
                "leakage": estimate.value,
                "low": estimate.low,
                "high": estimate.high,
                "standard_error": estimate.standard_error,
                "p_mcnemar": float(p[index]),
            }
            if status in {"ok", "single"}
            else {}
        )
        rows.append(LeakageRow(
            **grid.key("leakage", seed, name if kind == "persona" else f"({name})"), persona=name, context=kind, role=grid.roles[index],
            category=categories.get(name, "") if kind == "persona" else "", n_items=int(both.sum()),
            n_failed=int(np.ceil(grid.failed[index])), n_seeds=len(grid.seeds), status=status, reason=reason, **numbers,
        ))  # fmt: skip
    return rows


def state(n: int, failed: float, total: int, settings: AnalysisSettings) -> tuple[str, str]:
    """Status and reason of an estimate from n of `total` pairs, `failed` of them lost; the rest have no score."""
    unscored = total - n - int(failed)
    notes = [f"{failed:g} of {total} pairs failed or are missing ({failed / total:.1%})"] if failed else []
    notes += [f"{unscored} of {total} pairs have no score (code, a refusal)"] if unscored > 0 else []
    if total and failed > settings.failed_limit * total:
        return "refused", "; ".join([*notes, f"above {settings.failed_limit:.0%}"])
    if n == 0:
        return "empty", "; ".join(["no pair of values before and after", *notes])
    if n == 1:
        return "single", "; ".join(["one pair: no interval", *notes])
    return "ok", "; ".join(notes)
