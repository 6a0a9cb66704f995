"""Power: against closed forms, and what it says of the gate."""

from __future__ import annotations

import math

import pytest
from statsmodels.stats.power import TTestPower

from bystander.analysis.stats.power import (
    gate_passes,
    pearson_of,
    power_of_rho,
    smallest_change,
    smallest_rho,
    spearman_of,
    width_of_mean,
    width_of_rho,
)


def test_smallest_rho_agrees_with_fishers_approximation():
    for n in (20, 50):
        r = math.tanh((1.959964 + 0.841621) * (1.06 / (n - 3)) ** 0.5)  # 1.06: Fieller's factor for Spearman
        assert smallest_rho(n) == pytest.approx(r, abs=0.03)


def test_power_at_no_effect_is_the_level():
    assert power_of_rho(50, 0.0) == pytest.approx(0.05, abs=0.012)


def test_four_bystanders_can_never_reach_five_percent_nor_five_one_percent():
    """Of 4! orders two are perfect: p is 2 / 24 at the least."""
    assert power_of_rho(4, 0.99) == 0
    assert math.isnan(smallest_rho(4))
    assert math.isnan(smallest_rho(5, alpha=0.01))
    assert smallest_rho(5) < 1  # 2 / 120
    assert smallest_rho(6, alpha=0.01) < 1  # 2 / 720


def test_error_of_measurement_takes_power():
    assert smallest_rho(50, reliability=0.5) > smallest_rho(50) + 0.1
    assert math.isnan(smallest_rho(11, reliability=0.3))  # even a perfect gradient is missed


def test_eleven_personas_and_rho_0_2_are_a_coin_toss():
    assert gate_passes(11, 0.2, 0.2) == pytest.approx(0.5, abs=0.03)
    assert gate_passes(11, 0.2, 0.0) > 0.2  # and no gradient at all passes more than every fifth time
    assert gate_passes(110, 0.2, 0.0) < 0.03
    assert power_of_rho(11, 0.2) < 0.15
    assert smallest_rho(11) > 0.7


def test_smallest_change_is_statsmodels():
    effect = TTestPower().solve_power(nobs=40, alpha=0.05, power=0.8, alternative="larger")
    assert smallest_change(40**-0.5, 39) == pytest.approx(effect, abs=1e-4)


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_too_few_personas_have_no_power(n):
    assert math.isnan(smallest_rho(n))
    assert math.isnan(power_of_rho(n, 0.5))
    assert math.isnan(width_of_rho(n, 0.0))


def test_without_an_error_nothing_is_known():
    assert math.isnan(smallest_change(float("nan"), 10))
    assert math.isnan(width_of_mean(0.0, 10))


def test_normal_scores_go_both_ways():
    assert spearman_of(pearson_of(0.6)) == pytest.approx(0.6)
    assert spearman_of(1.0) == pytest.approx(1.0)
