"""The checks by name, and how many studies each simulates in the full run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from calibration.arms import benign_arm, given_baseline, one_leaks
from calibration.captures import capture_area, captured_counts, half_captured, two_groups
from calibration.forecasts import forecasts
from calibration.hunts import hunts
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
from calibration.nulls import fixed_sources, length_distance, pseudo_sources
from calibration.recovery import correlation_recovery, few_questions, hard_intervals, mean_intervals, power_promise
from calibration.rows import CalibrationLine
from calibration.rules import (
    asymmetric_pairs,
    broken_model,
    matched_doses,
    no_leakage,
    picked_configuration,
    prediction_skill,
    ratio_intervals,
)

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
    "benign_arm": (benign_arm, 1_000),
    "one_leaks": (one_leaks, 300),
    "given_baseline": (given_baseline, 1_000),
    "pseudo_sources": (pseudo_sources, 1_000),
    "fixed_sources": (fixed_sources, 1_000),
    "length_distance": (length_distance, 1_000),
    "ratio_intervals": (ratio_intervals, 1_000),
    "captured_counts": (captured_counts, 1_000),
    "capture_area": (capture_area, 1_000),
    "half_captured": (half_captured, 400),
    "two_groups": (two_groups, 1_000),
    "broken_model": (broken_model, 1_000),
    "picked_configuration": (picked_configuration, 2_000),
    "matched_doses": (matched_doses, 1_000),
    "no_leakage": (no_leakage, 2_000),
    "prediction_skill": (prediction_skill, 400),
    "asymmetric_pairs": (asymmetric_pairs, 1_000),
    "forecasts": (forecasts, 200),
    "hunts": (hunts, 100),
}


def run_check(name: str, studies: int | None) -> list[CalibrationLine]:
    """One check, with its own number of studies for None. Each draws from its own seed: their order decides nothing."""
    check, most = CHECKS[name]
    return list(check(studies or most))


def kept_check(name: str, *, folder: Path | None, studies: int | None) -> list[CalibrationLine]:
    """The lines of a check: those that `folder` holds, or made now and left there."""
    file = folder / f"{name}-{studies or 'all'}.json" if folder else None
    if file is not None and file.is_file():
        return [CalibrationLine(**line) for line in json.loads(file.read_text())]
    found = run_check(name, studies)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps([asdict(line) for line in found]))
    return found
