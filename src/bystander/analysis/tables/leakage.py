"""Leakage of every persona and context, with its interval: the mean paired change over questions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from bystander.analysis.pairs import Grid
from bystander.analysis.settings import KEYS, OUTCOME_KEYS, Settings
from bystander.analysis.stats.intervals import Estimate, bca, bounded, crossed, few_changes

Floats = NDArray[np.float64]


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


def names_of(grid: Grid, seed: int | None) -> dict[str, object]:
    """The key columns of a row about this grid."""
    return {
        **dict(zip(KEYS, grid.key, strict=True)),
        "seed": seed,
        **dict(zip(OUTCOME_KEYS, grid.outcome, strict=True)),
    }


def record(table: str, grid: Grid, seed: int | None, *more: object) -> str:
    """The stable name of a row: table / source / behavior / arm / config / seed / probe / dataset / metric / more."""
    behavior, source, arm, config = grid.key
    named = f"seed{seed}" if seed is not None else "pooled"
    return "/".join(str(part) or "-" for part in (table, source, behavior, arm, config, named, *grid.outcome, *more))


def single_seed(grid: Grid, settings: Settings) -> list[Estimate]:
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


def over_seeds(grid: Grid) -> list[Estimate]:
    """Per unit: questions and seeds as crossed levels. The mean over the population of both."""
    return [crossed(grid.change[:, unit], (0, 1)).within(grid.unit) for unit in range(len(grid.names))]


def leakage_rows(
    grid: Grid, seed: int | None, categories: dict[str, str], settings: Settings
) -> list[dict[str, object]]:
    """One row per persona and context of this grid (of one seed, or pooled over its seeds)."""
    several = len(grid.seeds) > 1
    estimates = over_seeds(grid) if several else single_seed(grid, settings)
    p = mcnemar(grid.before[0], grid.after[0]) if grid.binary and not several else np.full(len(grid.names), np.nan)
    paired = np.isfinite(grid.change)
    rows: list[dict[str, object]] = []
    for place, estimate in enumerate(estimates):
        kind, name = grid.kinds[place], grid.names[place]
        both = paired[:, place]
        status, reason = state(int(both.sum()), float(grid.failed[place]), both.size, settings)
        row: dict[str, object] = {
            "record": record("leakage", grid, seed, name if kind == "persona" else f"({kind})"),
            **names_of(grid, seed),
            "persona": name,
            "category": categories.get(name, "") if kind == "persona" else "",
            "context": kind,
            "role": grid.roles[place],
            "n_items": int(both.sum()),
            "n_failed": int(np.ceil(grid.failed[place])),
            "n_seeds": len(grid.seeds),
            "status": status,
            "reason": reason,
        }
        if status in {"ok", "single"}:
            row |= {
                "before": float(grid.before[:, place][both].mean()),
                "after": float(grid.after[:, place][both].mean()),
                "leakage": estimate.value,
                "low": estimate.low,
                "high": estimate.high,
                "standard_error": estimate.standard_error,
                "p_mcnemar": float(p[place]),
            }
        rows.append(row)
    return rows


def state(n: int, failed: float, total: int, settings: Settings) -> tuple[str, str]:
    """Status and reason of an estimate from n of `total` pairs, `failed` of them lost; the rest have no score."""
    unscored = total - n - int(failed)
    said = [f"{failed:g} of {total} pairs failed or are missing ({failed / total:.1%})"] if failed else []
    said += [f"{unscored} of {total} pairs have no score (code, a refusal)"] if unscored > 0 else []
    if total and failed > settings.failed_limit * total:
        return "refused", "; ".join([*said, f"above {settings.failed_limit:.0%}"])
    if n == 0:
        return "empty", "; ".join(["no pair of values before and after", *said])
    if n == 1:
        return "single", "; ".join(["one pair: no interval", *said])
    return "ok", "; ".join(said)
