"""The personas that an estimate is over, taken from a grid: whose change counts, and what is held constant."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bystander.analysis.grid import PairedGrid
from bystander.analysis.predictors import Covariates
from bystander.analysis.settings import AnalysisSettings
from bystander.analysis.stats.distributions import norm
from bystander.analysis.stats.intervals import TAIL, Estimate, bounded, crossed, few_changes
from bystander.analysis.stats.means import Floats, mean_of
from bystander.analysis.stats.saturation import log_odds

EVERYTHING = (0, 1, 2)  # seeds, personas, questions


@dataclass(frozen=True)
class Sample:
    """The personas of one estimate. `changes` [seeds, personas, questions] signed in the behavior's direction (one
    "question" where only a leakage by persona is known); the covariates [personas], None where unknown."""

    changes: Floats
    categories: tuple[str, ...] = ()
    prompt_length: Floats | None = None
    baseline: Floats | None = None
    before: Floats | None = None  # [personas, questions] of the untrained model, over seeds
    logits: Floats | None = None  # [personas] leakage on the scale of log-odds, of a fraction

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
            None if self.before is None else self.before[chosen],
            None if self.logits is None else self.logits[chosen],
        )


def sample_of(grid: PairedGrid, known: Covariates, settings: AnalysisSettings) -> tuple[Sample, list[str], list[str]]:
    """The bystanders of a grid that can be used -> (sample, their names, names left out because too much failed)."""
    chosen = grid.bystanders(settings.bystander_roles)
    sound = grid.sound(settings.failed_limit)
    refused = [grid.names[i] for i in np.flatnonzero(chosen & ~sound)]
    part = grid.pick(chosen & sound)
    lengths = np.array([known.prompt_tokens.get(name, np.nan) for name in part.names])
    categories = tuple(known.category.get(name, "") for name in part.names)
    paired = np.isfinite(part.leakage)
    before = np.where(paired, part.untrained(settings.failed_limit), np.nan)
    baseline = mean_of(before, (0, 2)) if part.names else None
    # A table of leakage by persona without a baseline holds zeros for it, which say nothing.
    asked = mean_of(before, 0) if part.names and part.before.shape[2] > 1 else None
    sample = Sample(part.leakage, categories, lengths, baseline, asked, _on_log_odds(part, paired))
    return sample, list(part.names), refused


def _on_log_odds(part: PairedGrid, paired: NDArray[np.bool_]) -> Floats | None:
    """[personas] difference of the log-odds of the means, signed; None for what is no fraction of several questions."""
    if part.unit != "fraction" or not part.names or part.before.shape[2] < 2:
        return None
    after, reference = (
        log_odds(np.where(paired, values, np.nan).transpose(1, 0, 2).reshape(len(part.names), -1))
        for values in (part.after, part.reference)
    )
    return part.direction * (after - reference)


def source_change(grid: PairedGrid, settings: AnalysisSettings) -> Floats | None:
    """[seeds, questions] of the source's own leakage; None where it was not measured or too much of it failed."""
    place = source_place(grid)
    if place is None or grid.roles[place] != "source" or not grid.sound(settings.failed_limit)[place]:
        return None
    return grid.leakage[:, place]


def source_place(grid: PairedGrid) -> int | None:
    """The source's place among the units; None where it was not measured. A bare context may have the name and the prompt of
    the persona that is the source: the persona comes first."""
    own = [i for i, name in enumerate(grid.names) if name == grid.training.source]
    own.sort(key=lambda index: (grid.roles[index] != "source", grid.kinds[index] != "persona"))
    return own[0] if own else None


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
