"""Which tests were declared before the data: per behavior one outcome, arm and configuration, at the declared predictor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bystander.analysis.grid import PairedGrid
from bystander.analysis.hypotheses import Hypothesis, Threshold
from bystander.analysis.keys import OutcomeKey
from bystander.analysis.settings import AnalysisSettings
from bystander.analysis.stats.means import mean_of
from bystander.analysis.tables.control import control_of
from bystander.analysis.tables.pooled import PooledRow
from bystander.analysis.tables.sample import source_change
from bystander.analysis.tables.similarity_correlation import SimilarityCorrelationRow
from bystander.core.metrics import outcomes_of

ARM = "contrastive"  # the arm of a claim, where no hypothesis names one


@dataclass(frozen=True, slots=True)
class Declared:
    """What a behavior's claim is tested on."""

    behavior: str
    outcome: OutcomeKey
    arm: str
    config: str
    bound: float = np.nan  # the hypothesis's threshold for the bystanders' mean
    compared: int = 1  # configurations among which this one was picked for its effect: p is multiplied by it

    def names(self, row: SimilarityCorrelationRow | PooledRow) -> bool:
        """Whether a row is about it."""
        key = row if isinstance(row, PooledRow) else row.training
        return (key.behavior, key.arm, key.config, row.outcome) == (self.behavior, self.arm, self.config, self.outcome)


def threshold_of(whole: Sequence[PairedGrid], hypothesis: Hypothesis) -> Threshold | None:
    """The first threshold of a hypothesis whose outcome was measured in its arm."""
    outcomes = {
        grid.outcome
        for grid in whole
        if (grid.training.behavior, grid.training.arm) == (hypothesis.behavior, hypothesis.arm)
    }
    return next((threshold for threshold in hypothesis.thresholds if threshold.outcome in outcomes), None)


def primary_outcome(whole: Sequence[PairedGrid], behavior: str) -> tuple[str, ...] | None:
    """The first of `core.metrics.outcomes_of` that was measured for this behavior."""
    measured = {grid.outcome for grid in whole if grid.training.behavior == behavior}
    return next((outcome for outcome in outcomes_of(behavior) if outcome in measured), None)


def declared_of(whole: Sequence[PairedGrid], hypothesis: Hypothesis, settings: AnalysisSettings) -> Declared | None:
    """What a hypothesis is tested on; None where nothing of it was measured."""
    threshold = threshold_of(whole, hypothesis)
    if threshold is None:
        return None
    config, compared = hypothesis.config, hypothesis.compared
    if config is None:
        config, compared = best_config(whole, hypothesis.behavior, threshold.outcome, hypothesis.arm, settings)
    return Declared(
        hypothesis.behavior, OutcomeKey(*threshold.outcome), hypothesis.arm, config, threshold.bystanders, compared
    )


def all_declared(
    whole: Sequence[PairedGrid], hypotheses: Sequence[Hypothesis], settings: AnalysisSettings
) -> list[Declared]:
    """The declared tests of a study: of its hypotheses, and of behaviors without one on their primary outcome."""
    found = [declared_of(whole, hypothesis, settings) for hypothesis in hypotheses]
    tests = [test for test in found if test is not None]
    for behavior in sorted({grid.training.behavior for grid in whole} - {test.behavior for test in tests}):
        outcome = primary_outcome(whole, behavior)
        if outcome is not None and any(grid.training.arm == ARM and grid.outcome == outcome for grid in whole):
            config, compared = best_config(whole, behavior, outcome, ARM, settings)
            tests.append(Declared(behavior, OutcomeKey(*outcome), ARM, config, compared=compared))
    return tests


def best_config(
    whole: Sequence[PairedGrid], behavior: str, outcome: tuple[str, ...], arm: str, settings: AnalysisSettings
) -> tuple[str, int]:
    """The configuration that a claim is about, where the study names none, and of how many it was picked for its effect.

    Measured on the most sources; of several such on the most personas; of those one that broke no model; of those the
    largest mean effect on the source.
    """
    chosen = [
        grid for grid in whole if (grid.training.behavior, grid.training.arm, grid.outcome) == (behavior, arm, outcome)
    ]

    def rank(config: str) -> tuple[int, int, bool, float, str]:
        grids = [grid for grid in chosen if grid.training.config == config]
        broke = any(control_of(grid, whole, settings).broke for grid in grids)
        own = [source_change(grid, settings) for grid in grids]
        effects = [float(mean_of(change)) for change in own if change is not None]
        personas = min((len(grid.names) for grid in grids), default=0)
        return len(grids), personas, not broke, float(np.mean(effects)) if effects else -np.inf, config

    ranks = sorted((rank(config) for config in {grid.training.config for grid in chosen}), reverse=True)
    if not ranks:
        return "", 1
    return ranks[0][-1], sum(other[:3] == ranks[0][:3] for other in ranks)
