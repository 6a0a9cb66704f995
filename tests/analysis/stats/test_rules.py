"""Equivalence, saturation, selection, a broken model, the gate's odds, prediction skill and asymmetry."""

import numpy as np
import pytest
from scipy.stats import norm, ttest_1samp

from bystander.analysis.stats.asymmetry import asymmetry
from bystander.analysis.stats.control import control_fall, fall_found, items_needed, over_sources
from bystander.analysis.stats.equivalence import equivalence
from bystander.analysis.stats.gate import bystanders_needed, gate_statistics, gate_stops
from bystander.analysis.stats.intervals import NONE, crossed
from bystander.analysis.stats.saturation import d_prime, log_odds, saturation
from bystander.analysis.stats.selection import pick_and_test, picking_items
from bystander.analysis.stats.skill import skills
from bystander.analysis.stats.uncertainty import atanh, persona_variance
from bystander.core.errors import DataError

RNG = np.random.default_rng(0)
VALUES = 0.01 + 0.1 * RNG.standard_normal(200)


def estimate(values):
    return crossed(values[None], (0, 1))


def test_equivalence_against_two_one_sided_t_tests():
    found = equivalence(estimate(VALUES), 0.03)
    slow = max(
        ttest_1samp(VALUES, -0.03, alternative="greater").pvalue, ttest_1samp(VALUES, 0.03, alternative="less").pvalue
    )
    assert found.p == pytest.approx(slow)
    assert found.shown == (slow < 0.05)
    assert equivalence(estimate(VALUES), found.smallest).p == pytest.approx(0.05)
    assert f"beyond {found.smallest:.3g} points either way is excluded" in found.sentence(" points")


def test_equivalence_without_an_error_excludes_nothing():
    found = equivalence(NONE, 0.1)
    assert not found.shown
    assert np.isnan(found.smallest)
    assert "nothing is excluded" in found.sentence()
    with pytest.raises(DataError, match="above 0"):
        equivalence(estimate(VALUES), 0.0)


def test_a_control_breaks_by_its_interval_alone():
    unmoved = control_fall(estimate(np.zeros(0)), 0.02)
    assert unmoved.state == "open"
    few = control_fall(estimate(np.array([-1.0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])), 0.02)
    assert few.fall > 0.08  # the point lies far beyond the limit
    assert few.state == "open"
    fell = control_fall(estimate(-0.1 + 0.1 * RNG.standard_normal(300)), 0.02)
    assert fell.state == "broke"
    assert fell.sentence().startswith("broke: fell by 0.")
    held = control_fall(estimate(0.05 * RNG.standard_normal(300)), 0.02)
    assert held.state == "intact"
    assert held.p_broke == pytest.approx(1 - held.p_intact)
    with pytest.raises(DataError, match="limit"):
        control_fall(estimate(VALUES), -1.0)


def test_one_of_many_sources_is_not_broken_by_chance():
    falls = [control_fall(estimate(-0.02 + x), 0.02) for x in 0.1 * RNG.standard_normal((40, 60))]
    assert any(fall.state == "broke" for fall in falls)
    assert "broke" not in over_sources(falls)
    assert over_sources([]) == []


def test_what_300_control_questions_find():
    assert fall_found(0.5, 300) == pytest.approx(0.02 + 2.487 * 0.5 / 300**0.5, abs=1e-3)
    assert items_needed(0.5) == pytest.approx((2.487 * 0.5 / 0.02) ** 2, rel=1e-3)
    assert np.isnan(fall_found(0.5, 1))
    with pytest.raises(DataError, match="above 0"):
        items_needed(0.0)


def test_gate_odds_from_the_interval_of_the_analysis():
    found = gate_statistics(8, 0.3, studies=50)
    again = gate_statistics(8, 0.3, studies=50)
    assert found["rho"] is again["rho"]
    assert (found["low"] <= found["rho"]).all()
    from bystander.analysis.stats.power import pearson_of
    from bystander.core.hashing import generator

    x, noise = generator("gate", 8, 50).standard_normal((2, 50, 8))
    y = pearson_of(0.3) * x + (1 - pearson_of(0.3) ** 2) ** 0.5 * noise
    half = 2.446912 * np.sqrt([persona_variance(a[None], b, 2, 0)[0] for a, b in zip(x, y, strict=True)])
    assert found["high"] == pytest.approx(np.tanh(atanh(found["rho"]) + half), abs=1e-6)


def test_a_gate_on_the_upper_end_hardly_stops_eight_bystanders():
    assert gate_stops(8, 0.2, 0.0, "high") < 0.04
    assert 0.1 < gate_stops(8, 0.2, -0.5, "high") < 0.2
    assert gate_stops(8, 0.2, 0.0, "low") > 0.95
    assert np.isnan(gate_stops(3, 0.2, 0.0, "high"))
    assert bystanders_needed(0.2, "rho", rho=-0.3) < bystanders_needed(0.2, "high", rho=-0.3)
    assert bystanders_needed(0.2, "high", rho=0.3, most=16) is None
    with pytest.raises(DataError, match="cannot be simulated"):
        gate_statistics(8, 1.0)


def test_saturation_flags():
    found = saturation(0.97, np.array([0.0, 0.01, 0.5, 0.99]))
    assert found.source_saturated
    assert (found.floor, found.ceiling) == (0.5, 0.25)
    assert found.flagged
    assert not saturation(0.95, np.array([0.3, 0.6])).flagged
    assert np.isnan(saturation(0.5, np.zeros(0)).floor)
    for wrong in (97.0, np.nan):
        with pytest.raises(DataError):
            saturation(wrong, np.array([0.5]))


def test_scales_that_stretch_the_ends():
    answers = np.array([[1.0, 1, 1, 0], [1, 1, 1, 1], [np.nan, np.nan, np.nan, np.nan]])
    assert log_odds(answers)[:2] == pytest.approx([np.log(3.5 / 1.5), np.log(4.5 / 0.5)])
    assert np.isnan(log_odds(answers)[2])
    assert d_prime(answers, 1 - answers)[:2] == pytest.approx([norm.ppf(0.7) - norm.ppf(0.3), 2 * norm.ppf(0.9)])


def test_items_are_split_by_their_names():
    items = [f"q{i}" for i in range(101)]
    first = picking_items(items, "capability")
    assert first.sum() == 50
    shuffled = list(reversed(items))
    assert {n for n, c in zip(items, first, strict=True) if c} == {
        n for n, c in zip(shuffled, picking_items(shuffled, "capability"), strict=True) if c
    }
    assert (picking_items(items, "marker") != first).any()
    for wrong, share in ((["q1", "q1"], 0.5), (items, 1.0)):
        with pytest.raises(DataError):
            picking_items(wrong, share=share)


def test_what_is_picked_on_some_items_is_tested_on_the_others():
    effects = RNG.standard_normal((4, 40))
    picking = np.arange(40) < 20
    found = pick_and_test(effects, picking)
    assert found.place == int(effects[:, :20].mean(axis=1).argmax())
    assert found.testing.value == pytest.approx(effects[found.place, 20:].mean())
    assert found.testing.n == 20
    for wrong in (np.zeros(40, dtype=bool), np.ones(40, dtype=bool), picking[:5]):
        with pytest.raises(DataError):
            pick_and_test(effects, wrong)
    with pytest.raises(DataError, match="no configuration was measured"):
        pick_and_test(np.full((2, 40), np.nan), picking)


def slow_skill(x, y, known, base):
    """Errors of lines fitted without the source and the persona, one by one."""
    model = total = 0.0
    for s, p in zip(*np.nonzero(known), strict=True):
        others = known.copy()
        others[s], others[:, p] = False, False
        model += (y[s, p] - np.polyval(np.polyfit(x[others], y[others], 1), x[s, p])) ** 2
        if base is None:
            seen = [y[t, p] for t in range(len(y)) if t != s and known[t, p]]
            total += (y[s, p] - np.mean(seen)) ** 2
        else:
            total += (y[s, p] - np.polyval(np.polyfit(base[others], y[others], 1), base[s, p])) ** 2
    return 1 - model / total


def test_prediction_skill_against_fits_one_by_one():
    x, y = RNG.standard_normal((2, 4, 12))
    y += x
    known = np.ones((4, 12), dtype=bool)
    known[[0, 1, 2], [0, 1, 2]] = False
    length = RNG.poisson(20, 12).astype(float)
    found = skills(x, y, length, known)
    assert found.values_persona.value == pytest.approx(slow_skill(x, y, known, None))
    base = np.broadcast_to(length, x.shape)
    assert found.values_length.value == pytest.approx(slow_skill(x, y, known, base))
    assert found.values_length.low < found.values_length.value < found.values_length.high
    assert skills(x, np.exp(5 * y), length, known).ranks_length.value == pytest.approx(found.ranks_length.value)
    kept = known.copy()
    kept[:, 5] = False  # a persona left out of the study: what the jackknife leaves out in turn
    without = np.delete(known, 5, axis=1)
    assert skills(x, y, length, kept).values_length.value == pytest.approx(
        slow_skill(np.delete(x, 5, 1), np.delete(y, 5, 1), without, np.delete(base, 5, 1))
    )


def test_prediction_skill_needs_three_sources():
    x, y = RNG.standard_normal((2, 2, 12))
    found = skills(x, y, np.arange(12.0), np.ones((2, 12), dtype=bool))
    assert np.isnan(found.values_length.value)
    with pytest.raises(DataError, match="leakage holds"):
        skills(x, np.full((2, 12), np.nan), np.arange(12.0), np.ones((2, 12), dtype=bool))


def test_asymmetry_of_a_pair_by_hand():
    leakage = np.full((3, 3, 1, 50), np.nan)
    leakage[0, 1] = 0.3 + 0.05 * RNG.standard_normal(50)
    leakage[1, 0] = 0.1 + 0.05 * RNG.standard_normal(50)
    leakage[0, 2] = 0.2  # measured one way only
    found = asymmetry(leakage)
    assert found.pairs == ((0, 1), (0, 2), (1, 2))
    slow = ttest_1samp((leakage[0, 1] - leakage[1, 0])[0], 0.0)
    assert found.p[0] == pytest.approx(slow.pvalue)
    assert found.difference[0] == pytest.approx(found.forth[0] - found.back[0])
    assert found.low[0] < 0.2 < found.high[0]
    assert np.isnan(found.p[1:]).all()
    assert found.p_any == pytest.approx(found.p[0])
    assert np.isnan(asymmetry(leakage[:1, :1]).p_any)
    with pytest.raises(DataError, match="sources, sources"):
        asymmetry(leakage[0])
