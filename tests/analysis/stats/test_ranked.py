"""Predictors ranked once against the functions that rank anew for every outcome."""

from __future__ import annotations

import numpy as np
import pytest

from bystander.analysis.stats.capture import area, areas
from bystander.analysis.stats.intervals import resampling_counts
from bystander.analysis.stats.ranked import ranked
from bystander.analysis.stats.ranks import spearman, unit_ranks
from bystander.analysis.stats.uncertainty import bootstrap_spearman, persona_variance

RNG = np.random.default_rng(3)


@pytest.mark.parametrize("n", [8, 40])
def test_the_variance_over_personas_is_that_of_the_slow_way(n):
    predictors, outcome = RNG.normal(size=(5, n)), np.round(RNG.normal(size=n), 1)
    fast = ranked(predictors, 300, 0)
    assert fast.persona_variance(outcome) == pytest.approx(persona_variance(predictors, outcome, 300, 0), rel=1e-4)
    assert fast.unit @ unit_ranks(outcome) == pytest.approx(spearman(predictors, outcome))
    again = np.round(RNG.normal(size=n), 1)
    assert fast.persona_variance(again) == pytest.approx(persona_variance(predictors, again, 300, 0), rel=1e-4)


def test_draws_of_some_of_the_personas_are_those_of_the_slow_way():
    predictors, outcome = RNG.normal(size=(3, 40)), RNG.normal(size=40)
    at = tuple(range(5, 45))
    slow = bootstrap_spearman(predictors, outcome, resampling_counts(50, 200, 1)[:, list(at)])
    assert ranked(predictors, 200, 1, 50, at).draws(outcome) == pytest.approx(slow, abs=1e-6)


def test_the_same_predictors_are_ranked_once():
    predictors = RNG.normal(size=(3, 30))
    assert ranked(predictors, 200, 1) is ranked(predictors.copy(), 200, 1)
    assert ranked(predictors, 200, 1) is not ranked(-predictors, 200, 1)


def test_areas_of_many_predictors_are_those_of_each():
    predictors, captured = RNG.normal(size=(6, 50)), RNG.random(50) < 0.2
    predictors[0] = captured + 0.0  # apart: an area of 1
    found = np.array(areas(predictors, captured)).T
    slow = [area(one, captured) for one in predictors]
    assert found == pytest.approx(np.array([[one.value, one.low, one.high] for one in slow]))
    assert found[0][2] == 1.0
    assert np.isnan(areas(predictors, np.zeros(50, dtype=bool))[0]).all()
