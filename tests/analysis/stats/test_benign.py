"""Leakage beyond a benign arm and each bystander's own test, against the one-at-a-time statistics."""

import numpy as np
import pytest
from scipy.stats import binomtest

from bystander.analysis.stats.benign import beyond_benign, deficit, per_bystander
from bystander.analysis.stats.intervals import crossed
from bystander.core.errors import DataError

RNG = np.random.default_rng(0)


def test_pairs_by_seed_and_item_in_the_behaviors_direction():
    trained, benign = RNG.random((2, 3, 4)), RNG.random((2, 3, 4))
    benign[0, 1, 2] = np.nan
    found = beyond_benign(trained, benign, -1)
    assert np.isnan(found[0, 1, 2])
    assert found[1, 2, 3] == benign[1, 2, 3] - trained[1, 2, 3]
    one = beyond_benign(trained, benign[1:], -1)
    assert one[0, 0, 0] == benign[1, 0, 0] - trained[0, 0, 0]
    with pytest.raises(DataError, match="do not pair"):
        beyond_benign(trained, benign[:, :2], -1)


def test_deficit_is_against_the_negatives_mean_on_the_same_item():
    after, negatives = np.array([[[0.2, 0.6]]]), np.array([[[1.0, 1.0], [0.0, 1.0]]])
    assert deficit(after, negatives, -1) == pytest.approx(np.array([[[0.3, 0.4]]]))
    with pytest.raises(DataError, match="do not pair"):
        deficit(after, negatives[:, :0], -1)


@pytest.mark.parametrize("seeds", [1, 3])
def test_per_bystander_against_one_at_a_time(seeds):
    leakage = RNG.standard_normal((seeds, 6, 30)) + 0.2
    found = per_bystander(leakage, unit="score")
    for persona in range(6):
        one = crossed(leakage[:, persona], (0, 1))
        assert found.leakage[persona] == pytest.approx(one.value)
        assert found.standard_error[persona] == pytest.approx(one.standard_error)
        assert found.p[persona] == pytest.approx(one.p)
        assert found.p_below[persona] == pytest.approx(1 - one.p)


def test_answers_of_one_seed_get_the_one_sided_mid_p():
    row = np.array([1.0] * 9 + [-1.0] * 2 + [0.0] * 20)
    found = per_bystander(row[None, None])
    exact, next_one = binomtest(9, 11, alternative="greater").pvalue, binomtest(10, 11, alternative="greater").pvalue
    assert found.p[0] == pytest.approx((exact + next_one) / 2)


def test_the_largest_and_holms_p_that_any_leaks():
    leakage = RNG.choice([-1.0, 0.0, 1.0], (1, 20, 300), p=[0.1, 0.8, 0.1])
    leakage[0, 7, :40] = 1.0
    found = per_bystander(leakage)
    assert found.largest == 7
    assert found.p_any == found.p_holm[7] == pytest.approx(20 * found.p[7])
    assert found.p_any < 0.001


def test_nothing_to_test():
    assert per_bystander(np.zeros((1, 0, 5))).largest == -1
    assert np.isnan(per_bystander(np.zeros((1, 0, 5))).p_any)
    one = per_bystander(np.ones((1, 2, 1)), unit="score")
    assert np.isnan(one.p).all()
    unmoved = per_bystander(np.zeros((1, 2, 50)))
    assert unmoved.p == pytest.approx([0.5, 0.5])
    missing = per_bystander(np.full((1, 2, 50), np.nan))
    assert np.isnan(missing.p).all()
