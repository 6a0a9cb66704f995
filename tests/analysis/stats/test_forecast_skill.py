"""Skill of a forecast on worlds whose truth is known, and against the plain way to compute it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t

from bystander.analysis.stats.forecast_skill import (
    folds_of,
    foretold_apart,
    mean_elsewhere,
    persona_mean_foretold,
    ranks_within,
    skill_over,
)
from bystander.analysis.stats.leakage_model import fit


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def world(rng, weight=0.0, leaning=0.0, sources=4, personas=40):
    """x [n, 1], leakage [n], source [n], persona [n]: personas that lean to leak from every source, and a predictor."""
    x = rng.standard_normal((sources, personas))
    y = leaning * rng.standard_normal(personas) + weight * x + rng.standard_normal((sources, 1))
    y = y + rng.standard_normal(y.shape)
    source = np.repeat(np.arange(sources), personas)
    return x.reshape(-1, 1), y.ravel(), source, np.tile(np.arange(personas), sources)


def test_ranks_run_from_minus_one_to_one_within_source():
    found = ranks_within(np.array([3.0, 1.0, 2.0, 5.0, 5.0]), np.array([0, 0, 0, 1, 1]))
    assert found == pytest.approx([2 / 3, -2 / 3, 0, 0, 0])


def test_all_rows_of_a_persona_lie_in_one_fold(rng):
    persona = np.tile(np.arange(23), 3)
    folds = folds_of(persona)
    assert all(len(set(folds[persona == one])) == 1 for one in range(23))
    assert sorted(np.bincount(folds[:23])) == [4, 4, 5, 5, 5]


def test_a_row_is_foretold_without_its_source_and_without_its_persona(rng):
    """Changing everything about a row's source and its persona changes nothing of what is foretold of it."""
    x, y, source, persona = world(rng, weight=1.0)
    before = foretold_apart(x, y, source, persona, ["x"])
    mine = (source == 0) | (persona == 0)
    after = foretold_apart(x, np.where(mine, y + rng.normal(size=len(y)), y), source, persona, ["x"])
    assert after[0] == pytest.approx(before[0], abs=1e-12)
    fold = folds_of(persona)
    seen = (source != 0) & (fold != fold[0])
    assert before[0] == pytest.approx(fit(x[seen], y[seen], source[seen], ["x"]).foretell(x[:1])[0])


def test_the_mean_elsewhere_is_that_of_the_other_sources_centered(rng):
    _, y, source, persona = world(rng, leaning=1.0, sources=3, personas=5)
    table = y.reshape(3, 5) - y.reshape(3, 5).mean(axis=1, keepdims=True)
    found = mean_elsewhere(y, source, persona).reshape(3, 5)
    assert found[0] == pytest.approx(table[1:].mean(axis=0))
    without = mean_elsewhere(y, source, persona, without=2).reshape(3, 5)
    assert without[0] == pytest.approx(table[1])
    assert without[2] == pytest.approx(table[:2].mean(axis=0))
    assert (mean_elsewhere(y[:5], source[:5], persona[:5]) == 0).all()


def test_skill_is_one_minus_the_ratio_of_errors_with_a_jackknife_over_personas(rng):
    x, y, source, persona = world(rng, weight=1.0)
    foretold = foretold_apart(x, y, source, persona, ["x"])
    base = foretold_apart(x[:, :0], y, source, persona, [])
    found = skill_over(foretold, base, y, source, persona)
    errors = [(y - one) ** 2 for one in (foretold, base)]
    assert found.value == pytest.approx(1 - errors[0].sum() / errors[1].sum())
    left = [np.log(errors[0][persona != one].sum() / errors[1][persona != one].sum()) for one in range(40)]
    half = t.ppf(0.975, 39) * (39 / 40 * ((left - np.mean(left)) ** 2).sum()) ** 0.5
    whole = np.log(errors[0].sum() / errors[1].sum())
    assert (found.low, found.high) == pytest.approx((1 - np.exp(whole + half), 1 - np.exp(whole - half)))
    assert found.by_source == pytest.approx(
        [1 - errors[0][source == s].sum() / errors[1][source == s].sum() for s in range(4)]
    )
    assert np.isnan(skill_over(y[:3], y[:3], y[:3], source[:3], persona[:3]).value)


def test_what_foretells_is_seen_and_what_does_not_is_not(rng):
    """A weight of 1 against noise of 1 within source: R2 of half, less what an unknown level costs. A random predictor: 0,
    also over the persona's mean, which a mean taken as it is would lose to."""
    random, known = [], []
    for _ in range(10):
        x, y, source, persona = world(rng, weight=1.0)
        ranks = ranks_within(y, source)
        base = persona_mean_foretold(ranks, source, persona)
        known.append(skill_over(foretold_apart(x, ranks, source, persona, ["x"]), base, ranks, source, persona).low)
        noise = rng.standard_normal(x.shape)
        random.append(
            skill_over(foretold_apart(noise, ranks, source, persona, ["x"]), base, ranks, source, persona).value
        )
    assert min(known) > 0.2
    assert abs(np.mean(random)) < 0.04


def test_personas_that_leak_from_every_source_are_known_to_the_persona_mean(rng):
    _, y, source, persona = world(rng, leaning=2.0)
    nothing = np.zeros((len(y), 0))
    ranks = ranks_within(y, source)
    base = foretold_apart(nothing, ranks, source, persona, [])
    assert skill_over(persona_mean_foretold(ranks, source, persona), base, ranks, source, persona).low > 0.4
