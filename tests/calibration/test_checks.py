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
}


def allowed(row: CalibrationLine) -> tuple[float, float]:
    """The accepted band, widened by what binomial error does to `row.studies` studies at its two ends."""
    low = binom.ppf(0.0005, row.studies, row.low) / row.studies
    high = binom.ppf(0.9995, row.studies, row.high) / row.studies
    return low, high


@pytest.mark.parametrize("name", STUDIES)
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
