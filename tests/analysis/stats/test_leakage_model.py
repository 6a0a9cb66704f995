"""The forecast's regression and its intervals on worlds whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from bystander.analysis.stats.conformal import covered, half_width
from bystander.analysis.stats.leakage_model import fit, left_out, standardized
from bystander.core.errors import DataError


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def world(rng, sources=6, personas=100, weights=(0.5, 0.0), between=0.3, slopes=0.1, within=0.4):
    """Features [n, K], leakage [n], source [n]: sources with levels and slopes of their own."""
    x, y, s = [], [], []
    for source in range(sources):
        features = standardized(rng.normal(size=(personas, len(weights))))
        own = np.array(weights) + rng.normal(0, slopes, len(weights))
        x.append(features)
        y.append(0.2 + rng.normal(0, between) + features @ own + rng.normal(0, within, personas))
        s += [source] * personas
    return np.concatenate(x), np.concatenate(y), np.array(s)


def test_planted_weights_and_spreads_are_found(rng):
    model = fit(*world(rng, sources=40), ["a", "b"])
    assert model.weights == pytest.approx((0.5, 0.0), abs=0.06)
    assert model.level == pytest.approx(0.2, abs=0.15)
    assert model.within == pytest.approx(0.4, abs=0.02)
    assert model.between == pytest.approx(0.3, abs=0.1)
    assert model.slopes == pytest.approx(0.1, abs=0.05)
    assert model.note == ""
    assert model.foretell(np.array([[1.0, 0.0]]))[0] - model.foretell(np.zeros((1, 2)))[0] == pytest.approx(
        model.weights[0]
    )


def test_a_line_without_sources_that_differ_is_least_squares(rng):
    x, y, s = world(rng, between=0, slopes=0)
    model = fit(x, y, s, ["a", "b"])
    solved, *_ = np.linalg.lstsq(np.column_stack([np.ones(len(y)), x]), y, rcond=None)
    assert (model.level, *model.weights) == pytest.approx(solved, abs=0.01)


def test_one_source_is_said_to_say_nothing_of_others(rng):
    model = fit(*world(rng, sources=1), ["a", "b"])
    assert "one source" in model.note
    with pytest.raises(DataError, match="one source"):
        left_out(*world(rng, sources=1), ["a", "b"])


def test_a_left_out_source_is_foretold_by_the_others(rng):
    x, y, s = world(rng, sources=3)
    found = left_out(x, y, s, ["a", "b"])
    for one in range(3):
        assert found[s == one] == pytest.approx(
            fit(x[s != one], y[s != one], s[s != one], ["a", "b"]).foretell(x[s == one])
        )


@pytest.mark.parametrize(("rows", "text"), [(25, "too few"), (100, "not numbers")])
def test_what_is_refused(rng, rows, text):
    x, y, s = world(rng, sources=1, personas=rows)
    if rows == 100:
        y[3] = np.nan
    with pytest.raises(DataError, match=text):
        fit(x, y, s, ["a", "b"])


def test_a_constant_feature_is_nothing():
    assert (standardized(np.column_stack([np.full(5, 3.0), np.arange(5.0)]))[:, 0] == 0).all()


def test_half_width_is_the_quantile_of_sources_that_count_once():
    """Two sources, one of a single persona: levels up to 2/3 can be had, and each source holds a third of the weight."""
    many, one = np.arange(1.0, 101.0), np.array([1000.0])
    assert half_width([many, one], 0.3) == 90.0  # 0.3 of the weight: 90 of the hundred
    assert half_width([many, -one], 0.5) == 1000.0
    assert half_width([many, one], 0.7) == np.inf
    assert covered(np.array([-3.0, 1.0, 5.0]), 3.0) == pytest.approx(2 / 3)
    for wrong, text in (([], "at least one"), ([np.array([np.nan])], "not numbers")):
        with pytest.raises(DataError, match=text):
            half_width(wrong, 0.5)
    with pytest.raises(DataError, match="level"):
        half_width([many], 1.0)


def test_intervals_hold_for_unseen_sources(rng):
    """80 % over personas of sources that differ in level and slope; personas as the unit would hold far less."""
    pooled, by_persona = [], []
    for _ in range(15):
        x, y, s = world(rng, sources=9, personas=40, between=0.6, within=0.2, weights=(0.5,))
        train = s < 8
        residuals = y[train] - left_out(x[train], y[train], s[train], ["a"])
        new = y[~train] - fit(x[train], y[train], s[train], ["a"]).foretell(x[~train])
        pooled.append(covered(new, half_width([residuals[s[train] == one] for one in range(8)], 0.8)))
        model = fit(x[s == 0], y[s == 0], s[s == 0], ["a"])
        own = y[s == 0] - model.foretell(x[s == 0])
        by_persona.append(covered(y[~train] - model.foretell(x[~train]), float(np.quantile(np.abs(own), 0.8))))
    assert 0.72 <= np.mean(pooled) <= 0.92
    assert np.mean(by_persona) < 0.5


def test_a_random_feature_has_no_skill_and_intervals_as_wide_as_no_knowledge(rng):
    """R2 against the level of the other sources is 0 within noise, and widths are alike. (`calibration` does it 200 times.)"""
    skills, widths = [], []
    for _ in range(15):
        x, y, s = world(rng, sources=4, personas=50, weights=(0.0,), slopes=0.0)
        nothing = np.zeros((len(y), 0))
        errors = {"random": y - left_out(x, y, s, ["a"]), "none": y - left_out(nothing, y, s, [])}
        skills.append(1 - (errors["random"] ** 2).sum() / (errors["none"] ** 2).sum())
        half = {name: half_width([e[s == one] for one in range(4)], 0.75) for name, e in errors.items()}
        widths.append(half["random"] / half["none"])
    assert abs(np.mean(skills)) < 0.04
    assert np.mean(widths) == pytest.approx(1, abs=0.05)
