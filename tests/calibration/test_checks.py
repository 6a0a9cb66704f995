"""A short calibration: the checks of `calibration/`, with bounds that binomial error alone crosses once in 1,000 times.

The full run is `make calibration`; its table is docs/calibration.md.
"""

from __future__ import annotations

import pytest
from scipy.stats import binom

from calibration.checks import CHECKS
from calibration.rows import CalibrationLine

STUDIES = {
    "null_correlations": 60,
    "null_within_categories": 60,
    "null_prompt_length": 150,
    "null_pooled": 40,
    "null_means": 200,
    "null_timing": 100,
    "correlation_recovery": 20,
    "mean_intervals": 60,
    "few_questions": 100,
    "benign_arm": 60,
    "one_leaks": 30,
    "given_baseline": 40,
    "pseudo_sources": 60,
    "length_distance": 60,
    "ratio_intervals": 60,
    "captured_counts": 30,
    "capture_area": 100,
    "half_captured": 20,
    "two_groups": 60,
    "broken_model": 40,
    "picked_configuration": 200,
    "matched_doses": 60,
    "no_leakage": 200,
    "prediction_skill": 20,
    "asymmetric_pairs": 60,
    "forecasts": 5,
    "hunts": 30,
}


def allowed(row: CalibrationLine) -> tuple[float, float]:
    """The accepted band, widened by what binomial error does to `row.studies` studies at its two ends."""
    low = binom.ppf(0.0005, row.studies, row.low) / row.studies
    high = binom.ppf(0.9995, row.studies, row.high) / row.studies
    return low, high


SLOW = ("forecasts",)  # two minutes: five studies, each forecast with every source left out


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in STUDIES])
def test_what_is_offered_keeps_its_level(name):
    rows = [row for row in CHECKS[name][0](STUDIES[name]) if row.offered]
    assert rows
    for row in rows:
        if row.kind == "bias":  # rho of one study has a standard deviation near 0.09
            assert abs(row.figure) < 0.02 + 3.3 * 0.09 / row.studies**0.5, row
            continue
        low, high = allowed(row)
        assert low <= row.figure <= high, row


def test_the_check_sees_a_test_that_does_not_keep_its_level():
    """A plain permutation within source, with persona effects: the simulation must catch what is not offered."""
    rows = [row for row in CHECKS["null_within_categories"][0](40) if not row.offered]
    (row,) = rows
    assert row.figure > 0.5
    assert row.figure > allowed(row)[1]


@pytest.mark.parametrize(
    ("name", "statistic"),
    [
        ("benign_arm", "change: similarity correlation, p"),
        ("given_baseline", "similarity correlation: partial_baseline_p"),
        ("pseudo_sources", "similarity correlation: p"),
        ("length_distance", "similarity correlation: p given raw prompt length"),
        ("ratio_intervals", "leakage ratio, interaction left in the covariance"),
        ("picked_configuration", "picked configuration, tested on the same questions"),
    ],
)
def test_the_worlds_see_what_claims_rested_on_before(name, statistic):
    """Each world must catch what it was made for; the best and the worst of its lines are told apart by chance alone."""
    rows = [row for row in CHECKS[name][0](60) if not row.offered and row.statistic == statistic]
    assert rows
    worst = max(rows, key=lambda row: row.figure if row.kind == "level" else 1 - row.figure)
    low, high = allowed(worst)
    assert not low <= worst.figure <= high
