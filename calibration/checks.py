"""The checks by name, and how many studies each simulates in the full run."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from calibration.levels import (
    null_correlations,
    null_means,
    null_mixed_model,
    null_pooled,
    null_pooled_clusters,
    null_prompt_length,
    null_timing,
    null_within_categories,
)
from calibration.recovery import correlation_recovery, few_questions, hard_intervals, mean_intervals, power_promise
from calibration.rows import CalibrationLine

CHECKS: dict[str, tuple[Callable[[int], Iterator[CalibrationLine]], int]] = {  # check, studies of the full run
    "null_correlations": (null_correlations, 1_000),
    "null_within_categories": (null_within_categories, 1_000),
    "null_prompt_length": (null_prompt_length, 1_000),
    "null_pooled": (null_pooled, 1_000),
    "null_pooled_clusters": (null_pooled_clusters, 1_000),
    "null_mixed_model": (null_mixed_model, 1_000),
    "null_means": (null_means, 1_000),
    "null_timing": (null_timing, 1_000),
    "correlation_recovery": (correlation_recovery, 1_000),
    "hard_intervals": (hard_intervals, 1_000),
    "mean_intervals": (mean_intervals, 1_000),
    "few_questions": (few_questions, 1_000),
    "power_promise": (power_promise, 1_000),
}
