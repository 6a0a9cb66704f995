"""Means over groups of personas: containment, categories, roles. Estimand: the mean over the population of personas of
that group, of questions and of seeds; the resampling units are the levels of all three (`intervals.crossed`)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from bystander.analysis.pairs import Grid
from bystander.analysis.predictors import Facts
from bystander.analysis.settings import Settings
from bystander.analysis.stats.intervals import NONE, TAIL, Estimate, bounded, crossed, few_changes, fieller
from bystander.analysis.stats.means import mean_of
from bystander.analysis.tables.gradient import sample_of
from bystander.analysis.tables.leakage import names_of, record
from bystander.core.errors import few_names

Floats = NDArray[np.float64]
EVERYTHING = (0, 1, 2)  # seeds, personas, questions
FIXED_UNITS = (0, 2)  # these very personas or contexts: seeds, questions


def source_change(grid: Grid, settings: Settings) -> Floats | None:
    """[seeds, questions] of the source's own change; None where it was not measured or too much of it failed."""
    for place, (kind, name, role) in enumerate(zip(grid.kinds, grid.names, grid.roles, strict=True)):
        if kind == "persona" and role == "source" and name == grid.key[1]:
            return grid.change[:, place] if grid.sound(settings.failed_limit)[place] else None
    return None


def source_estimate(own: Floats, unit: str) -> Estimate:
    """The source's mean change over questions and seeds, `own` [seeds, questions]; n counts the questions.

    With one seed, and a fraction that adds up to few changes (8 questions at a probability of 0.99), the interval and p are
    the bounded ones: what the few questions did not show, Student's t would not allow for.
    """
    estimate = replace(crossed(own, (0, 1)).within(unit), n=int(np.isfinite(own).any(axis=0).sum()))
    if len(own) > 1 or unit != "fraction" or not few_changes(own)[0]:
        return estimate
    (low,), (high,) = bounded(own)
    middle, error = (low + high) / 2, (high - low) / 2 / norm.ppf(1 - TAIL)
    return replace(estimate, low=float(low), high=float(high), p=float(norm.sf(middle / error)))


def containment_row(grid: Grid, seed: int | None, facts: Facts, settings: Settings) -> dict[str, object]:
    """The source's leakage, the mean over held-out bystanders, and their ratio with Fieller's interval."""
    sample, names, refused = sample_of(grid, facts, settings)
    own = source_change(grid, settings)
    source = source_estimate(own, grid.unit) if own is not None else NONE
    bystander = crossed(sample.changes, EVERYTHING).within(grid.unit) if names else NONE
    ratio, low, high = containment(own, sample.changes) if own is not None and names else (np.nan,) * 3
    leakage = sample.leakage if names else np.zeros(0)
    worst = int(np.argmax(leakage)) if names else -1
    status, reason = _state(own, names, refused, grid.before.shape[0] * grid.before.shape[2])
    return {
        "record": record("containment", grid, seed),
        **names_of(grid, seed),
        "n": len(names),
        "n_seeds": len(grid.seeds),
        **_columns("source", source),
        **_columns("bystander", bystander),
        "ratio": ratio,
        "ratio_low": low,
        "ratio_high": high,
        "source_estimate": source,  # for the verdicts; not columns of the table
        "bystander_estimate": bystander,
        "max_persona": names[worst] if names else None,
        "max_leakage": float(leakage[worst]) if names else None,
        "status": status,
        "reason": reason,
    }


def _columns(prefix: str, estimate: Estimate) -> dict[str, object]:
    return {
        f"{prefix}_leakage": estimate.value,
        f"{prefix}_low": estimate.low,
        f"{prefix}_high": estimate.high,
        f"{prefix}_standard_error": estimate.standard_error,
        f"{prefix}_p": estimate.p,
    }


def _state(own: Floats | None, names: list[str], refused: list[str], values: int) -> tuple[str, str]:
    said = [f"left out, too much failed or not measured: {few_names(refused)}"] if refused else []
    said += ["one value a persona: the intervals are over personas alone"] if values == 1 else []
    if own is None or not names:
        missing = "the source was not measured, or too much of it failed" if own is None else "no held-out bystander"
        return "empty", "; ".join([missing, *said])
    return "ok", "; ".join(said)


def containment(own: Floats, changes: Floats) -> tuple[float, float, float]:
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


def category_rows(grid: Grid, seed: int | None, facts: Facts, settings: Settings) -> list[dict[str, object]]:
    """Mean leakage of the held-out bystanders of each category. n = 1: the interval is about that persona alone."""
    sample, names, _ = sample_of(grid, facts, settings)
    rows: list[dict[str, object]] = []
    for category in sorted({category for category in sample.categories if category}):
        chosen = np.array([own == category for own in sample.categories])
        estimate = crossed(sample.changes[:, chosen], EVERYTHING).within(grid.unit)
        rows.append(
            {
                "record": record("categories", grid, seed, category),
                **names_of(grid, seed),
                "category": category,
                "n": int(chosen.sum()),
                **_mean(estimate),
                "reason": names[int(np.flatnonzero(chosen)[0])] if chosen.sum() == 1 else "",
            }
        )
    return rows


def role_rows(grid: Grid, seed: int | None, settings: Settings) -> list[dict[str, object]]:
    """Mean leakage by role. Source and negatives are these very contexts; held-out and mixed personas are a sample."""
    rows: list[dict[str, object]] = []
    sound = grid.sound(settings.failed_limit)
    persona = np.array([kind == "persona" for kind in grid.kinds])
    for role in ("source", "negative", "held-out", "mixed"):
        sampled = role in {"held-out", "mixed"}
        chosen = np.array([own == role for own in grid.roles]) & sound
        units = np.flatnonzero(chosen & persona if sampled else chosen)
        if not len(units):
            continue
        estimate = crossed(grid.change[:, units], EVERYTHING if sampled else FIXED_UNITS).within(grid.unit)
        shown = [grid.names[i] if grid.kinds[i] == "persona" else f"({grid.kinds[i]})" for i in units]
        rows.append(
            {
                "record": record("roles", grid, seed, role),
                **names_of(grid, seed),
                "role": role,
                "n": len(units),
                **_mean(estimate),
                "contexts": "" if sampled else ", ".join(shown),
            }
        )
    return rows


def _mean(estimate: Estimate) -> dict[str, object]:
    status = "ok" if np.isfinite(estimate.low) else "single"
    return {"leakage": estimate.value, "low": estimate.low, "high": estimate.high, "status": status, "reason": ""}
