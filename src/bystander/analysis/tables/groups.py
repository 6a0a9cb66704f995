"""Mean leakage over groups of personas: categories, roles. Estimand: the mean over the population of personas of that group,
of questions and of seeds; the resampling units are the levels of all three (`intervals.crossed`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from bystander.analysis import keys
from bystander.analysis.grid import PairedGrid
from bystander.analysis.keys import ROLES, SeedRow
from bystander.analysis.predictors import Covariates
from bystander.analysis.settings import AnalysisSettings
from bystander.analysis.stats.intervals import Estimate, crossed
from bystander.analysis.tables.sample import EVERYTHING, sample_of

FIXED_UNITS = (0, 2)  # these very personas or contexts: seeds, questions
GroupSize = Annotated[int, "personas, or contexts, of the group"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryRow(SeedRow):
    """One row per training, outcome and category: mean leakage of the bystanders of that category."""

    category: keys.Category
    n: GroupSize
    leakage: keys.Leakage
    low: keys.Low
    high: keys.High
    status: keys.RowStatus
    reason: keys.RowReason


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleRow(SeedRow):
    """One row per training, outcome and role: mean leakage of the contexts of that role."""

    role: keys.RoleName
    n: GroupSize
    leakage: keys.Leakage
    low: keys.Low
    high: keys.High
    contexts: Annotated[str, "their names, comma-separated; empty for held-out and mixed"]
    status: keys.RowStatus
    reason: keys.RowReason


def category_rows(
    grid: PairedGrid, units: Sequence[Estimate], seed: int | None, known: Covariates, settings: AnalysisSettings
) -> list[CategoryRow]:
    """Mean leakage of the held-out bystanders of each category. n = 1: the persona's own of `unit_estimates`, which
    `units` are."""
    sample, names, _ = sample_of(grid, known, settings)
    of = zip(grid.kinds, grid.names, units, strict=True)
    alone = {name: estimate for kind, name, estimate in of if kind == "persona"}
    rows: list[CategoryRow] = []
    for category in sorted({category for category in sample.categories if category}):
        chosen = np.array([own == category for own in sample.categories])
        mean = crossed(sample.changes[:, chosen], EVERYTHING).within(grid.unit)
        if chosen.sum() == 1:
            mean = alone[names[int(np.flatnonzero(chosen)[0])]]
        rows.append(CategoryRow(
            **grid.key("categories", seed, category),
            category=category, n=int(chosen.sum()), leakage=mean.value, low=mean.low, high=mean.high, status=_status(mean),
            reason=names[int(np.flatnonzero(chosen)[0])] if chosen.sum() == 1 else "",
        ))  # fmt: skip
    return rows


def role_rows(
    grid: PairedGrid, alone: Sequence[Estimate], seed: int | None, settings: AnalysisSettings
) -> list[RoleRow]:
    """Mean leakage by role. Source and negatives are these very contexts; held-out and mixed personas are a sample.
    `alone`: `unit_estimates`."""
    rows: list[RoleRow] = []
    sound = grid.sound(settings.failed_limit)
    persona = np.array([kind == "persona" for kind in grid.kinds])
    for role in ROLES:
        sampled = role in {"held-out", "mixed"}
        chosen = np.array([own == role for own in grid.roles]) & sound
        units = np.flatnonzero(chosen & persona if sampled else chosen)
        if not len(units):
            continue
        mean = crossed(grid.leakage[:, units], EVERYTHING if sampled else FIXED_UNITS).within(grid.unit)
        if len(units) == 1 and not sampled:
            mean = alone[units[0]]
        shown = [grid.names[i] if grid.kinds[i] == "persona" else f"({grid.names[i]})" for i in units]
        rows.append(RoleRow(
            **grid.key("roles", seed, role), role=role,
            n=len(units), leakage=mean.value, low=mean.low, high=mean.high, status=_status(mean), reason="",
            contexts="" if sampled else ", ".join(shown),
        ))  # fmt: skip
    return rows


def _status(mean: Estimate) -> str:
    return "ok" if np.isfinite(mean.low) else "single"
