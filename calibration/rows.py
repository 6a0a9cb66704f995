"""Lines of the calibration table, and simulated studies in the form that the statistics take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kstest

from bystander.analysis.settings import AnalysisSettings
from bystander.analysis.stats.means import Floats
from bystander.analysis.tables.crossing import SourceSample
from bystander.analysis.tables.sample import Sample
from calibration import worlds

TESTS = AnalysisSettings(permutations=999, partial_permutations=999, resamples=4)  # where only p-values are looked at
INTERVALS = AnalysisSettings(permutations=9, partial_permutations=9, resamples=600)  # where only intervals are


@dataclass(frozen=True, slots=True)
class CalibrationLine:
    """One line of the table. `kind`: level (share of p < 0.05 under no effect), coverage, bias or power."""

    kind: str
    statistic: str
    scenario: str
    studies: int
    figure: float
    low: float  # what is accepted
    high: float
    ks: float | None = None  # Kolmogorov-Smirnov p of uniformity, for levels
    offered: bool = True  # False: shown to say why it is not offered, or not for this question

    @property
    def keeps(self) -> bool:
        """Within what is accepted."""
        return self.low <= self.figure <= self.high


def level(
    statistic: str, scenario: str, p: list[float], low: float = 0.035, high: float = 0.065, offered: bool = True
) -> CalibrationLine:
    """Share of studies in which a true null is rejected at 5 %."""
    values = np.array(p)
    ks = float(kstest(values + np.random.default_rng(0).uniform(-0.0005, 0.0005, values.size), "uniform").pvalue)
    return CalibrationLine("level", statistic, scenario, len(p), float((values < 0.05).mean()), low, high, ks, offered)


def coverage(
    statistic: str, scenario: str, hits: list[bool], offered: bool = True, high: float = 0.975
) -> CalibrationLine:
    """Share of 95 % intervals that hold the truth. `high` 1: an interval that promises at least 95 %."""
    return CalibrationLine("coverage", statistic, scenario, len(hits), float(np.mean(hits)), 0.92, high, None, offered)


def bias(statistic: str, scenario: str, estimates: list[float], true: float, offered: bool = True) -> CalibrationLine:
    """Mean estimate minus truth."""
    return CalibrationLine(
        "bias", statistic, scenario, len(estimates), float(np.mean(estimates)) - true, -0.02, 0.02, None, offered
    )


def sample_at(changes: Floats, at: NDArray[np.intp], **facts: Floats) -> Sample:
    """The personas at these places, with their categories."""
    return Sample(changes[None], tuple(np.array(worlds.LABELS)[at]), facts.get("length"), facts.get("baseline"))


def sources_of(
    rng: np.random.Generator, x: Floats, leakage: Floats, questions: int, reliability: float
) -> list[SourceSample]:
    """Five sources, each with its own held-out personas, measured on shared questions."""
    sources: list[SourceSample] = []
    for source in range(len(x)):
        at = worlds.held_out(source)
        changes = worlds.measured(rng, leakage[source, at], questions, reliability)
        names = tuple(np.array(worlds.NAMES)[at])
        sources.append(SourceSample(names, sample_at(changes, at), x[source : source + 1, at]))
    return sources
