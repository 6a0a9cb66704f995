"""Captured bystanders: the count's interval by closed testing, the area, where half are captured, and two groups."""

import numpy as np
import pytest

from bystander.analysis.stats.bimodality import dip, dip_test, uniform_dips
from bystander.analysis.stats.capture import area, captures, true_nulls
from bystander.analysis.stats.half_capture import half_capture
from bystander.core.errors import DataError
from tests.reference.claims import area_by_pairs, dip_by_linear_program, true_nulls_by_closure


def two_groups(rng, captured=5, personas=30, items=120, seeds=1):
    rate = np.where(np.arange(personas) < captured, 0.8, 0.02)
    leakage = (rng.random((seeds, personas, items)) < rate[:, None]).astype(float)
    return leakage, (rng.random((seeds, items)) < 0.8).astype(float)


@pytest.mark.parametrize("alpha", [0.025, 0.2])
def test_number_of_true_nulls_against_all_sets(alpha):
    rng = np.random.default_rng(1)
    for _ in range(30):
        p = rng.random(8) ** rng.integers(1, 6)
        assert true_nulls(p, alpha) == true_nulls_by_closure(p, alpha)
    assert true_nulls(np.zeros(0), alpha) == 0


@pytest.mark.parametrize("seeds", [1, 2])
def test_two_clear_groups_are_counted_and_named(seeds):
    found = captures(*two_groups(np.random.default_rng(2), seeds=seeds))
    assert found.count == 5
    assert found.captured[:5].all()
    assert (found.low, found.high) == (5, 5) if seeds == 1 else found.low <= 5 <= found.high
    assert found.n == 30
    if seeds == 1:
        assert (found.p_holm[:5] < 0.05).all()
        assert (found.p_not_holm[5:] < 0.05).all()


def test_a_group_at_the_threshold_is_counted_with_a_wide_interval():
    rng = np.random.default_rng(3)
    leakage = (rng.random((1, 40, 100)) < 0.4).astype(float)
    found = captures(leakage, (rng.random((1, 100)) < 0.8).astype(float))
    assert found.low == 0
    assert found.high > 30


def test_a_source_without_leakage_captures_nobody():
    rng = np.random.default_rng(4)
    found = captures(rng.standard_normal((1, 10, 50)), rng.standard_normal((1, 50)) * 0.1)
    assert "cannot be told from 0" in found.reason
    assert (found.count, found.low, found.high) == (0, 0, 10)
    assert np.isnan(found.p).all()
    with pytest.raises(DataError, match="share"):
        captures(np.zeros((1, 2, 3)), np.zeros((1, 3)), 1.5)
    with pytest.raises(DataError, match="same seeds and questions"):
        captures(np.zeros((1, 2, 3)), np.zeros((1, 4)))


def test_no_bystander_and_one_item():
    leakage, source = two_groups(np.random.default_rng(5))
    none = captures(leakage[:, :0], source)
    assert (none.count, none.low, none.high) == (0, 0, 0)
    assert captures(leakage[:, :, :1], source[:, :1]).reason


def test_area_against_pairs_and_its_interval():
    rng = np.random.default_rng(6)
    captured = rng.random(60) < 0.2
    similarity = np.round(rng.standard_normal(60) + captured, 1)  # with ties
    found = area(similarity, captured)
    assert found.value == pytest.approx(area_by_pairs(similarity, captured))
    assert 0 < found.low < found.value < found.high < 1
    assert area(-similarity, captured).value == pytest.approx(1 - found.value)
    perfect = area(captured + 0.0, captured)
    assert perfect.value == perfect.high == 1
    assert 0.7 < perfect.low < 1
    assert np.isnan(area(similarity, np.zeros(60, dtype=bool)).value)
    with pytest.raises(DataError, match="not numbers"):
        area(np.full(60, np.nan), captured)


def test_half_captured_is_found_where_it_was_planted():
    rng = np.random.default_rng(7)
    x = [0.5 + 0.1 * rng.standard_normal(107) for _ in range(4)]
    halves = np.array([0.6, 0.62, 0.58, 0.6])
    found = half_capture(x, [(values > half) for values, half in zip(x, halves, strict=True)])
    assert found.low < 0.6 < found.high
    assert found.value == pytest.approx(0.6, abs=0.02)
    assert found.by_source == pytest.approx(halves, abs=0.02)
    assert ((found.by_source_low < halves) & (halves < found.by_source_high)).all()
    assert found.slope > 50  # log-odds per unit: the groups do not overlap


def test_half_captured_pools_a_source_that_captured_nobody():
    rng = np.random.default_rng(8)
    x = [rng.standard_normal(60) for _ in range(3)]
    y = [values > 1 for values in x[:2]] + [np.zeros(60, dtype=bool)]
    found = half_capture(x, y)
    assert found.by_source[2] > found.by_source[:2].max()
    assert found.by_source_high[2] - found.by_source_low[2] > found.by_source_high[0] - found.by_source_low[0]
    shifted = half_capture([3 + 2 * values for values in x], y)
    assert shifted.by_source == pytest.approx(3 + 2 * found.by_source)
    assert shifted.slope == pytest.approx(found.slope / 2)


def test_half_captured_without_anybody():
    x = np.random.default_rng(9).standard_normal(20)
    assert "0 of 20" in half_capture([x], [np.zeros(20, dtype=bool)]).reason
    one = half_capture([x], [x > 0.3])
    assert one.low < 0.3 < one.high
    assert one.value == pytest.approx(one.by_source[0])
    assert one.spread == 0
    with pytest.raises(DataError, match="0 sources"):
        half_capture([], [])


def test_dip_against_a_linear_program():
    rng = np.random.default_rng(10)
    for values in (
        rng.random(9),
        rng.standard_normal(10),
        np.append(rng.random(6), 5 + rng.random(5)),
        rng.exponential(size=8),
    ):
        assert dip(np.sort(values)) == pytest.approx(dip_by_linear_program(values), abs=1e-8)


def test_dip_does_not_move_with_scale_place_and_side():
    values = np.sort(np.random.default_rng(11).standard_normal(50))
    assert dip(3 + 2 * values) == pytest.approx(dip(values))
    assert dip(np.sort(-values)) == pytest.approx(dip(values))
    assert dip(np.arange(40.0)) == pytest.approx(1 / 80)  # evenly spaced: the smallest there is


def test_dip_test_sees_two_groups_and_not_ties():
    rng = np.random.default_rng(12)
    groups = np.append(rng.normal(0, 0.03, 80), rng.normal(0.4, 0.03, 27))
    assert dip_test(groups, rng).p < 0.01
    tied = np.round(rng.normal(0, 0.03, 107) * 40) / 40
    assert dip_test(tied, rng, step=1 / 40).p > 0.05
    assert dip_test(tied, rng).p < 0.05  # without the step its few values look like modes
    assert np.quantile(uniform_dips(100), 0.95) == pytest.approx(0.0456, abs=0.002)
    assert np.isnan(dip_test(np.zeros(10), rng).p)
    assert np.isnan(dip_test(np.arange(3.0), rng).p)
    with pytest.raises(DataError, match="not numbers"):
        dip_test(np.array([0.0, np.nan, 1.0, 2.0]), rng)
