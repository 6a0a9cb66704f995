"""Dose curves: by hand, and their error against the delta method done by resampling."""

import numpy as np
import pytest

from bystander.analysis.stats.dose import Course, area_interval, at_dose, dose_curve, matched_dose
from bystander.core.errors import DataError


def course(rng, end=1.0, slope=0.3, seeds=1, personas=15, questions=80):
    dose = end * np.arange(1, 6) / 5
    question = 0.2 * rng.standard_normal(questions)
    source = dose[:, None] * (1 + question) + 0.1 * rng.standard_normal((seeds, 5, questions))
    persona = 1 + 0.2 * rng.standard_normal((personas, 1))
    bystanders = slope * dose[:, None, None] * persona + 0.1 * rng.standard_normal((seeds, 5, personas, questions))
    return Course(source, bystanders)


def test_area_by_hand():
    assert dose_curve(np.array([0.5, 1.0]), np.array([0.5, 1.0])).area == pytest.approx(
        1
    )  # who does as the source does
    assert dose_curve(np.array([0.5, 1.0]), np.zeros(2)).area == 0
    late = dose_curve(np.array([0.5, 1.0]), np.array([0.0, 1.0]))
    assert late.area == pytest.approx((0.5 * 1.0 / 2) / 0.5)
    assert at_dose(late, 0.75) == pytest.approx(0.5 - 0.5 * 3 / 8)  # slopes 0 and 3 at its ends: it bends upwards
    assert at_dose(late, 0.25) == 0
    assert np.isnan(at_dose(late, 1.1))


def test_a_source_that_turns_back_is_averaged_and_counted():
    curve = dose_curve(np.array([0.4, 0.6, 0.5, 0.9]), np.array([0.1, 0.2, 0.4, 0.5]))
    assert curve.dose == pytest.approx([0, 0.4, 0.55, 0.9])
    assert curve.bystanders == pytest.approx([0, 0.1, 0.3, 0.5])
    assert curve.turned_back == 1


def test_a_source_that_never_gains():
    curve = dose_curve(np.array([-0.1, -0.2]), np.array([0.1, 0.1]))
    assert np.isnan(curve.area)
    assert np.isnan(at_dose(curve, 0.1))
    assert curve.turned_back == 2
    with pytest.raises(DataError, match="not numbers"):
        dose_curve(np.array([np.nan]), np.array([0.1]))
    with pytest.raises(DataError, match="same checkpoints"):
        dose_curve(np.array([0.1]), np.array([0.1, 0.2]))


@pytest.mark.parametrize("seeds", [1, 3])
def test_area_and_its_interval(seeds):
    found = area_interval(course(np.random.default_rng(0), seeds=seeds))
    assert found.low < 0.3 < found.high
    assert found.p < 1e-6


def test_error_of_the_area_against_new_questions_and_personas():
    rng = np.random.default_rng(1)
    drawn = [area_interval(course(rng)) for _ in range(150)]
    spread = np.std([one.value for one in drawn], ddof=1)
    width = np.mean([one.high - one.low for one in drawn])
    assert width / (2 * 2.1 * spread) == pytest.approx(1, abs=0.25)


def test_arms_on_one_curve_differ_at_the_end_and_not_at_matched_dose():
    rng = np.random.default_rng(2)
    far, near = course(rng), course(rng, end=0.5)
    found = matched_dose(far, near, 0.3)
    assert found.low < 0 < found.high
    other = matched_dose(far, course(rng, slope=0.6), 0.5)
    assert other.high < 0
    assert other.value == pytest.approx(-0.15, abs=0.05)
    never = matched_dose(far, near, 0.9)
    assert np.isnan([never.value, never.low, never.p]).all()
    with pytest.raises(DataError, match="same personas"):
        matched_dose(far, course(rng, personas=4), 0.3)
