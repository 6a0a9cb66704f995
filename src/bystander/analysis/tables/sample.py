"""The personas that an estimate is over, taken from a grid: whose change counts, and what is held constant."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from bystander.analysis.pairs import PairedGrid
from bystander.analysis.predictors import Covariates
from bystander.analysis.settings import AnalysisSettings
from bystander.analysis.stats.intervals import TAIL, Estimate, bounded, crossed, few_changes
from bystander.analysis.stats.means import Floats, mean_of

EVERYTHING = (0, 1, 2)  # seeds, personas, questions


@dataclass(frozen=True)
class Sample:
    """The personas of one estimate. `changes` [seeds, personas, questions] signed in the behavior's direction (one
    "question" where only a leakage by persona is known); the covariates [personas], None where unknown."""

    changes: Floats
    categories: tuple[str, ...] = ()
    prompt_length: Floats | None = None
    baseline: Floats | None = None

    @property
    def leakage(self) -> Floats:
        """[personas]: mean over seeds and questions."""
        return mean_of(self.changes, (0, 2))

    @property
    def by_seed(self) -> Floats:
        """[seeds, personas]."""
        return mean_of(self.changes, 2)

    @property
    def over_seeds(self) -> Floats:
        """[personas, questions]."""
        return self.changes[0] if len(self.changes) == 1 else mean_of(self.changes, 0)

    def pick(self, chosen: NDArray[np.bool_]) -> Sample:
        """The same for some of the personas."""
        return Sample(
            self.changes[:, chosen],
            tuple(np.array(self.categories, dtype=object)[chosen]) if self.categories else (),
            None if self.prompt_length is None else self.prompt_length[chosen],
            None if self.baseline is None else self.baseline[chosen],
        )


def sample_of(grid: PairedGrid, known: Covariates, settings: AnalysisSettings) -> tuple[Sample, list[str], list[str]]:
    """The bystanders of a grid that can be used -> (sample, their names, names left out because too much failed)."""
    chosen = grid.bystanders(settings.bystander_roles)
    sound = grid.sound(settings.failed_limit)
    refused = [grid.names[i] for i in np.flatnonzero(chosen & ~sound)]
    part = grid.pick(chosen & sound)
    lengths = np.array([known.prompt_tokens.get(name, np.nan) for name in part.names])
    categories = tuple(known.category.get(name, "") for name in part.names)
    baseline = mean_of(np.where(np.isfinite(part.change), part.before, np.nan), (0, 2)) if part.names else None
    return Sample(part.change, categories, lengths, baseline), list(part.names), refused


def source_place(grid: PairedGrid) -> int | None:
    """Where the source stands among the units; None where it was not measured. A bare context may have the name and the
    prompt of the persona that is the source: the persona comes first."""
    own = [
        i
        for i, (name, role) in enumerate(zip(grid.names, grid.roles, strict=True))
        if role == "source" and name == grid.training.source
    ]
    return min(own, key=lambda index: grid.kinds[index] != "persona", default=None)


def source_change(grid: PairedGrid, settings: AnalysisSettings) -> Floats | None:
    """[seeds, questions] of the source's own change; None where it was not measured or too much of it failed."""
    place = source_place(grid)
    return None if place is None or not grid.sound(settings.failed_limit)[place] else grid.change[:, place]


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
