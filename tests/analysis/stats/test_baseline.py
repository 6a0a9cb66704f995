"""The slope with the true baseline held constant, against every split of the questions, and the flag."""

import numpy as np
import pytest

from bystander.analysis.stats.baseline import confounding, slopes_given_baseline
from bystander.core.errors import DataError
from tests.reference.claims import slope_over_all_splits


def study(personas=12, questions=8, noise=0.3, seed=0):
    rng = np.random.default_rng(seed)
    baseline = rng.standard_normal(personas)
    question = rng.standard_normal(questions)
    before = baseline[:, None] + question + noise * rng.standard_normal((personas, questions))
    x = baseline + rng.standard_normal(personas)
    after = 2.0 + question + noise * rng.standard_normal((personas, questions))
    return x, before, after - before


def test_slope_against_every_split_into_halves():
    x, before, change = study()
    found = slopes_given_baseline(x[None], before, change)
    assert found.slope[0] == pytest.approx(slope_over_all_splits(x, before, change), abs=1e-9)


def test_standard_error_against_personas_left_out_one_by_one():
    x, before, change = study(personas=15)
    centered = [values - values.mean(axis=0) for values in (before, change)]  # shared questions are taken out once

    def slope(kept):
        b, y = (values[kept] for values in centered)
        n = before.shape[1]
        ranks = np.argsort(np.argsort(x)).astype(float)
        scores = ((ranks - ranks.mean()) / ranks.std())[kept]
        bb = ((b.sum(1) ** 2 - (b**2).sum(1)) / (n * (n - 1))).sum() - b.mean(1).sum() ** 2 / len(b)
        by = ((b.sum(1) * y.sum(1) - (b * y).sum(1)) / (n * (n - 1))).sum() - b.mean(1).sum() * y.mean(1).sum() / len(b)
        cross = [scores @ part - scores.sum() * part.sum() / len(b) for part in (scores, b.mean(1), y.mean(1))]
        return np.linalg.solve([[cross[0], cross[1]], [cross[1], bb]], [cross[2], by])[0]

    left = np.array([slope(np.arange(15) != j) for j in range(15)])
    found = slopes_given_baseline(x[None], before, change)
    assert found.standard_error[0] == pytest.approx((14 / 15 * ((left - left.mean()) ** 2).sum()) ** 0.5)


def test_a_change_that_is_baseline_alone_has_no_slope_and_is_flagged():
    x, before, change = study(personas=200, questions=40, noise=0.1, seed=2)
    found = slopes_given_baseline(np.stack([x, -x]), before, change)
    assert found.slope[0] == pytest.approx(-found.slope[1])
    assert abs(found.slope[0]) < 0.01
    assert (found.low < 0).all()
    assert (found.high > 0).all()
    flag = confounding(change.mean(axis=1), before.mean(axis=1))
    assert flag.rho < -0.95
    assert flag.flagged


def test_missing_items_are_left_out_in_pairs():
    x, before, change = study(personas=40, questions=30)
    holes = np.where(np.random.default_rng(3).random(before.shape) < 0.1, np.nan, before)
    whole, partial = (slopes_given_baseline(x[None], b, change) for b in (before, holes))
    assert np.isfinite(partial.slope[0])
    assert partial.slope[0] == pytest.approx(whole.slope[0], abs=2 * whole.standard_error[0])


def test_what_is_refused_and_what_is_not_known():
    x, before, change = study(personas=40)
    with pytest.raises(DataError, match="predictors holds 1 values that are not numbers"):
        slopes_given_baseline(np.where(np.arange(40) == 0, np.nan, x)[None], before, change)
    with pytest.raises(DataError, match="not numbers"):
        confounding(np.array([1.0, np.nan]), np.zeros(2))
    noise = np.random.default_rng(4).standard_normal((40, 8))
    weak = slopes_given_baseline(x[None], noise, -noise)
    assert "ask more questions" in weak.reason
    assert np.isnan(weak.p[0])
    assert "too few" in slopes_given_baseline(x[None, :5], before[:5], change[:5]).reason
    assert np.isnan(slopes_given_baseline(np.ones((1, 40)), before, change).p[0])
    assert not confounding(np.zeros(5), np.arange(5.0)).flagged
