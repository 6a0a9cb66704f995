"""Leakage of every persona and context, with its interval: the mean paired difference over questions, from the benign arm
where there is one; the change from the untrained model beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from bystander.analysis import keys
from bystander.analysis.grid import PairedGrid
from bystander.analysis.keys import SeedRow
from bystander.analysis.settings import AnalysisSettings
from bystander.analysis.stats.benign import crossed_by_persona, deficit
from bystander.analysis.stats.distributions import binom, t
from bystander.analysis.stats.intervals import TAIL, Estimate, bca, bounded, few_changes
from bystander.analysis.stats.means import Floats, mean_of, variance_of
from bystander.analysis.tables.captured import Group, unit_tests
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
    against: keys.Against
    before: Annotated[
        float, "mean over the paired questions at checkpoint 0; empty where too many of them failed, as is the change"
    ] = np.nan
    after: Annotated[float, "mean over the paired questions at the last checkpoint"] = np.nan
    benign: Annotated[float, "mean over the paired questions after the benign arm's training; empty without one"] = (
        np.nan
    )
    change: Annotated[float, "mean change from the untrained model in the behavior's direction: a description"] = np.nan
    deficit: Annotated[
        float,
        "how much more of the behavior than the trained negatives show on the same items; empty with a benign arm. It "
        "confirms nothing: what a persona lacked before is in it",
    ] = np.nan
    leakage: keys.Leakage = np.nan
    low: keys.Low = np.nan
    high: keys.High = np.nan
    standard_error: Annotated[
        float, "standard error of the leakage, over questions; over seeds too where there are several"
    ] = np.nan
    p_mcnemar: Annotated[float, "McNemar's test, two-sided mid-p; metrics of 0 and 1 only"] = np.nan
    p_above: Annotated[float, "one-sided, more of the behavior; held-out bystanders and bare contexts"] = np.nan
    p_above_holm: Annotated[float, "the same after Holm, over the bystanders (over the bare contexts)"] = np.nan
    p_below_holm: Annotated[float, "one-sided the other way, after Holm: less of the behavior"] = np.nan
    captured: Annotated[bool | None, "leakage above the set share of the source's (half of it)"] = None
    p_captured_holm: Annotated[float, "one-sided, above that share, after Holm over the bystanders"] = np.nan
    p_not_captured_holm: Annotated[float, "one-sided, below it, after Holm"] = np.nan
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
    change = grid.leakage[0]
    low, high = bca(change, settings.resamples, settings.seed)
    if grid.unit == "fraction":
        few, ends = few_changes(change), bounded(change)
        low, high = np.where(few, ends[0], low), np.where(few, ends[1], high)
    n = np.isfinite(change).sum(axis=1)
    value, error = mean_of(change, 1), np.sqrt(variance_of(change, 1) / np.maximum(n, 1))
    rows = range(len(n))
    return [
        Estimate(int(n[i]), float(value[i]), float(low[i]), float(high[i]), float(error[i]), float(n[i] - 1), np.nan)
        for i in rows
    ]


def over_seeds(grid: PairedGrid) -> list[Estimate]:
    """Per unit: questions and seeds as crossed levels. The mean over the population of both."""
    value, error, df = crossed_by_persona(grid.leakage)
    half = t.ppf(1 - TAIL, df) * error
    low, high, n = value - half, value + half, np.isfinite(grid.leakage).sum(axis=(0, 2))
    rows = range(len(n))
    return [
        Estimate(
            int(n[i]), float(value[i]), float(low[i]), float(high[i]), float(error[i]), float(df[i]), np.nan
        ).within(grid.unit)
        for i in rows
    ]


def unit_estimates(grid: PairedGrid, settings: AnalysisSettings) -> list[Estimate]:
    """Each unit's mean change with its interval, in the grid's order: the one that every table shows of that unit."""
    estimates = over_seeds(grid) if len(grid.seeds) > 1 else single_seed(grid, settings)
    own, at = source_change(grid, settings), source_place(grid)
    if own is not None and at is not None:
        estimates[at] = source_estimate(own, grid.unit)
    return estimates


def leakage_rows(
    grid: PairedGrid, units: Sequence[Estimate], seed: int | None, categories: dict[str, str],
    settings: AnalysisSettings, groups: Sequence[Group] = (),
) -> list[LeakageRow]:  # fmt: skip
    """One row per persona and context of this grid (of one seed, or pooled over its seeds). `units`: `unit_estimates`;
    `groups`: bystanders and bare contexts with the tests of each."""
    several = len(grid.seeds) > 1
    tested = grid.binary and not several
    p = mcnemar(grid.reference[0], grid.after[0]) if tested else np.full(len(grid.names), np.nan)
    numbers = _means(grid, settings) | {"p_mcnemar": p}
    counts = np.isfinite(grid.leakage).sum(axis=(0, 2)).tolist()
    failed, asked = grid.failed.tolist(), grid.asked.tolist()
    tests = unit_tests(groups)
    rows: list[LeakageRow] = []
    for index, estimate in enumerate(units):
        kind, name = grid.kinds[index], grid.names[index]
        status, reason = state(counts[index], failed[index], asked[index], settings)
        known: dict[str, Any] = {}
        if status in {"ok", "single"}:
            known = {column: float(values[index]) for column, values in numbers.items()} | tests.get(index, {})
            known |= {"leakage": estimate.value, "low": estimate.low, "high": estimate.high}
            known |= {"standard_error": estimate.standard_error}
        rows.append(LeakageRow(
            **grid.key("leakage", seed, name if kind == "persona" else f"({name})"), persona=name, context=kind, role=grid.roles[index],
            category=categories.get(name, "") if kind == "persona" else "", n_items=counts[index],
            n_failed=int(np.ceil(failed[index])), n_seeds=len(grid.seeds), against=grid.against, status=status, reason=reason, **known,
        ))  # fmt: skip
    return rows


def _means(grid: PairedGrid, settings: AnalysisSettings) -> dict[str, Floats]:
    """What describes each unit beside its leakage: columns of the table, each [units]."""
    both = np.isfinite(grid.leakage)
    untrained = grid.untrained(settings.failed_limit)
    before, after = (mean_of(np.where(both, values, np.nan), (0, 2)) for values in (untrained, grid.after))
    found = {"before": before, "after": after, "change": mean_of(grid.direction * (grid.after - untrained), (0, 2))}
    if grid.benign is not None:
        return found | {"benign": mean_of(np.where(both, grid.benign, np.nan), (0, 2))}
    missing = deficits(grid, settings)
    return found if missing is None else found | {"deficit": mean_of(missing, (0, 2))}


def deficits(grid: PairedGrid, settings: AnalysisSettings) -> Floats | None:
    """[seeds, units, questions] more of the behavior than the trained negatives show; None without negatives."""
    negatives = np.array([role == "negative" for role in grid.roles]) & grid.sound(settings.failed_limit)
    return deficit(grid.after, grid.after[:, negatives], grid.direction) if negatives.any() else None


def state(n: int, failed: float, total: int, settings: AnalysisSettings) -> tuple[str, str]:
    """Status and reason of an estimate from n of `total` pairs, `failed` of them lost; the rest have no score."""
    unscored = total - n - int(failed)
    notes = [f"{failed:g} of {total} pairs failed or are missing ({failed / total:.1%})"] if failed else []
    notes += [f"{unscored} of {total} pairs have no score (code, a refusal)"] if unscored > 0 else []
    if total and failed > settings.failed_limit * total:
        return "refused", "; ".join([*notes, f"above {settings.failed_limit:.0%}"])
    if n == 0:
        return "empty", "; ".join(["no pair of values", *notes])
    if n == 1:
        return "single", "; ".join(["one pair: no interval", *notes])
    return "ok", "; ".join(notes)
