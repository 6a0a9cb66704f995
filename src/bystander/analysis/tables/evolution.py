"""Training watched: leakage at every checkpoint, persona by persona and by fifth of similarity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import numpy as np

from bystander.analysis import keys
from bystander.analysis.grid import PairedGrid
from bystander.analysis.keys import OutcomeKey, SeedRow, TrainingKey
from bystander.analysis.predictors import Covariates, SimilarityTable
from bystander.analysis.settings import AnalysisSettings
from bystander.analysis.stats.intervals import crossed
from bystander.analysis.stats.means import Floats, mean_of, variance_of
from bystander.analysis.tables.leakage import over_seeds
from bystander.analysis.tables.sample import EVERYTHING

QUINTILE_COUNT = 5
DeclaredSimilarity = Annotated[
    float | None, "similarity to the source by the declared predictor; empty for the source and for bare contexts"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvolutionRow(SeedRow):
    """One row per training, persona or context, outcome and checkpoint, checkpoint 0 included."""

    persona: keys.PersonaName
    category: keys.Category
    context: keys.ContextName
    role: keys.RoleName
    similarity: DeclaredSimilarity
    quintile: Annotated[
        int | None, "fifth of similarity, 1 (least) to 5, of held-out bystanders measured at every checkpoint"
    ]
    checkpoint: keys.AtCheckpoint
    n_items: Annotated[int, "paired questions behind the estimate, summed over seeds"]
    value: Annotated[float, "mean of the metric over these questions"]
    against: Annotated[
        str, "benign arm at the same checkpoint, where it was measured at every one of them; else untrained model"
    ]
    leakage: Annotated[float, "difference from that in the behavior's direction; 0 at checkpoint 0 by definition"]
    standard_error: Annotated[float, "standard error of the leakage, over questions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuintileRow(SeedRow):
    """One row per training, outcome, fifth of similarity and checkpoint: mean leakage of its held-out bystanders."""

    quintile: Annotated[int, "fifth of similarity, 1 (least similar) to 5"]
    checkpoint: keys.AtCheckpoint
    n: keys.PersonaCount
    leakage: keys.Leakage
    low: keys.Low
    high: keys.High


@dataclass(frozen=True)
class Trajectory:
    """One outcome of one training design over its checkpoints: a grid at each, rising, without checkpoint 0."""

    checkpoints: tuple[float, ...]
    grids: tuple[PairedGrid, ...]
    seed: int | None

    @property
    def last(self) -> PairedGrid:
        """The grid at the last checkpoint."""
        return self.grids[-1]

    @cached_property
    def errors(self) -> tuple[Floats, ...]:
        """`standard_errors` at every checkpoint."""
        return tuple(standard_errors(grid) for grid in self.grids)

    def always(self) -> list[tuple[str, str]]:
        """Units (kind, name) measured at every checkpoint."""
        sets = [set(zip(grid.kinds, grid.names, strict=True)) for grid in self.grids]
        return sorted(set.intersection(*sets))


def trajectories(by_checkpoint: Sequence[tuple[float, Sequence[PairedGrid]]]) -> list[Trajectory]:
    """Grids of all checkpoints, put together by training design and outcome; pooled over seeds, then each seed."""
    groups: dict[tuple[TrainingKey, OutcomeKey], list[tuple[float, PairedGrid]]] = {}
    for checkpoint, members in by_checkpoint:
        for grid in members:
            groups.setdefault((grid.training, grid.outcome), []).append((checkpoint, grid))
    found: list[Trajectory] = []
    for members in groups.values():
        paired = all(grid.benign is not None for _, grid in members)
        steps = members if paired else [(checkpoint, grid.without_benign()) for checkpoint, grid in members]
        times = tuple(checkpoint for checkpoint, _ in steps)
        found.append(Trajectory(times, tuple(grid for _, grid in steps), None))
        seeds = set.intersection(*(set(grid.seeds) for _, grid in steps))
        if len(steps[-1][1].seeds) > 1:
            for seed in sorted(seeds, key=str):
                parts = tuple(grid.one_seed(grid.seeds.index(seed)) for _, grid in steps)
                found.append(Trajectory(times, parts, seed))
    return found


def similarity_of(
    trajectory: Trajectory, similarities: SimilarityTable, settings: AnalysisSettings
) -> dict[str, float]:
    """Similarity to the source by the declared predictor; empty where no layer was declared."""
    source = trajectory.last.training.source
    return {} if settings.layer is None else similarities.to(source, settings.method, settings.layer)


def quintiles_of(trajectory: Trajectory, similarity: Mapping[str, float], settings: AnalysisSettings) -> dict[str, int]:
    """Fifth of similarity, 1 to 5, of each held-out bystander measured at every checkpoint."""
    last = trajectory.last
    chosen = set(np.array(last.names, dtype=object)[last.bystanders(settings.bystander_roles)])
    names = [name for kind, name in trajectory.always() if kind == "persona" and name in chosen and name in similarity]
    ranked = sorted(names, key=lambda name: (similarity[name], name))
    return {name: 1 + QUINTILE_COUNT * index // len(ranked) for index, name in enumerate(ranked)}


def evolution_rows(
    trajectory: Trajectory, similarity: Mapping[str, float], fifth: Mapping[str, int], known: Covariates,
    settings: AnalysisSettings,
) -> list[EvolutionRow]:  # fmt: skip
    """One row per persona or context and checkpoint, the untrained model included. `similarity` from `similarity_of`,
    `fifth` from `quintiles_of`."""
    rows: list[EvolutionRow] = []
    for checkpoint, grid, of_grid in zip(trajectory.checkpoints, trajectory.grids, trajectory.errors, strict=True):
        errors = of_grid.tolist()
        both = np.isfinite(grid.leakage)
        counts = both.sum(axis=(0, 2)).tolist()
        before, after, leakage = (
            mean_of(np.where(both, values, np.nan), (0, 2)).tolist()
            for values in (grid.untrained(settings.failed_limit), grid.after, grid.leakage)
        )
        for index, (kind, name) in enumerate(zip(grid.kinds, grid.names, strict=True)):
            if not counts[index]:
                continue
            persona = kind == "persona"
            points = [(checkpoint, after[index], leakage[index], errors[index])]
            points += [(0.0, before[index], 0.0, np.nan)] if grid is trajectory.last else []
            rows += [EvolutionRow(
                **grid.key("evolution", trajectory.seed, name if persona else f"({name})", f"{at:g}"), persona=name, context=kind,
                category=known.category.get(name, "") if persona else "", role=grid.roles[index],
                similarity=similarity.get(name) if persona and name != grid.training.source else None,
                quintile=fifth.get(name) if persona else None, checkpoint=at, n_items=counts[index], value=value,
                against=grid.against, leakage=moved, standard_error=error,
            ) for at, value, moved, error in points]  # fmt: skip
    return rows


def standard_errors(grid: PairedGrid) -> Floats:
    """Standard error of each unit's leakage over questions (and seeds, where there are several) -> [units]."""
    if len(grid.seeds) > 1:
        return np.array([estimate.standard_error for estimate in over_seeds(grid)])
    count = np.isfinite(grid.leakage[0]).sum(axis=1)
    return np.sqrt(variance_of(grid.leakage[0], 1) / np.maximum(count, 1))


def quintile_rows(trajectory: Trajectory, fifth: Mapping[str, int]) -> list[QuintileRow]:
    """Mean leakage by fifth of similarity (`quintiles_of`) at every checkpoint; the interval is over personas, questions
    and seeds."""
    rows: list[QuintileRow] = []
    for checkpoint, grid in zip(trajectory.checkpoints, trajectory.grids, strict=True):
        own = np.array([fifth.get(n, 0) if k == "persona" else 0 for k, n in zip(grid.kinds, grid.names, strict=True)])
        for quintile in sorted(set(fifth.values())):
            mean = crossed(grid.leakage[:, own == quintile], EVERYTHING).within(grid.unit)
            rows.append(QuintileRow(
                **grid.key("quintiles", trajectory.seed, quintile, f"{checkpoint:g}"), quintile=quintile, checkpoint=checkpoint,
                n=int((own == quintile).sum()), leakage=mean.value, low=mean.low, high=mean.high,
            ))  # fmt: skip
    return rows
