"""Pseudo-sources and permuted source labels, against loops and by hand."""

import numpy as np
import pytest

from bystander.analysis.stats.specificity import source_labels, specificity, specificity_of_area
from bystander.core.errors import DataError
from tests.reference.claims import area_by_pairs, pseudo_source_rhos

RNG = np.random.default_rng(0)
POINTS = RNG.standard_normal((30, 4))
SIMILARITY = POINTS @ POINTS.T
HELD_OUT = np.ones(30, dtype=bool)
HELD_OUT[[3, 8]] = False  # the source and a negative


def test_rhos_of_all_pseudo_sources_against_a_loop():
    leakage, length = RNG.standard_normal(30), RNG.poisson(12, 30).astype(float)
    for covariate in (None, length):
        found = specificity(SIMILARITY, leakage, 3, HELD_OUT, prompt_length=covariate)
        slow = pseudo_source_rhos(SIMILARITY, leakage, HELD_OUT, covariate)
        assert found.observed[0] == pytest.approx(slow[3], abs=1e-9)
        assert found.references[0] == pytest.approx(np.delete(slow, 3), abs=1e-9)
        assert found.p[0] == pytest.approx((slow >= slow[3] - 1e-9).sum() / 30)
        assert (found.n_references, found.attainable) == (29, pytest.approx(1 / 30))


def test_areas_of_all_pseudo_sources_against_pairs():
    captured = SIMILARITY[3] + RNG.standard_normal(30) > 1
    found = specificity_of_area(SIMILARITY, captured, 3, HELD_OUT)
    for place, persona in enumerate(np.delete(np.arange(30), 3)):
        own = HELD_OUT & (np.arange(30) != persona)
        assert found.references[0, place] == pytest.approx(area_by_pairs(SIMILARITY[persona, own], captured[own]))


def test_the_source_that_alone_ranks_leakage_has_the_smallest_attainable_p():
    found = specificity(SIMILARITY, SIMILARITY[3] ** 3, 3, HELD_OUT)
    assert found.observed[0] == pytest.approx(1)
    assert found.p_max == found.attainable


def test_the_maximum_over_layers_is_held_against_maxima():
    layers = np.stack([SIMILARITY, *(a @ a.T for a in RNG.standard_normal((4, 30, 4)))])
    leakage = SIMILARITY[3] + RNG.standard_normal(30)
    found = specificity(layers, leakage, 3, HELD_OUT)
    assert (found.p_adjusted >= found.p).all()
    assert found.p_max == found.p_adjusted.min()
    largest = found.references.max(axis=0)
    assert found.p_max == pytest.approx((1 + (largest >= found.observed.max() - 1e-9).sum()) / 30)


def test_what_is_refused_and_what_is_not_known():
    leakage = RNG.standard_normal(30)
    with pytest.raises(DataError, match="among its own bystanders"):
        specificity(SIMILARITY, leakage, 4, HELD_OUT)
    with pytest.raises(DataError, match="outcome holds 1 values that are not numbers"):
        specificity(SIMILARITY, np.where(np.arange(30) == 5, np.nan, leakage), 3, HELD_OUT)
    with pytest.raises(DataError, match="has the shape"):
        specificity(SIMILARITY[:5], leakage, 3, HELD_OUT)
    without = specificity(SIMILARITY, np.where(HELD_OUT, leakage, np.nan), 3, HELD_OUT)  # the source's own is not read
    assert np.isfinite(without.p_max)
    assert np.isnan(specificity(SIMILARITY, np.zeros(30), 3, HELD_OUT).p_max)
    few = np.zeros(30, dtype=bool)
    few[:3] = True
    assert np.isnan(specificity(SIMILARITY, leakage, 5, few).p_max)


def test_permuted_labels_by_hand():
    leakage = RNG.standard_normal((3, 20))
    found = source_labels(leakage**3, leakage, RNG)
    assert found.observed[0] == pytest.approx(1)
    assert (found.orders, found.attainable, found.p[0]) == (6, pytest.approx(1 / 6), pytest.approx(1 / 6))
    assert source_labels(leakage[[1, 2, 0]] ** 3, leakage, RNG).p[0] > 1 / 6
    alone = source_labels(leakage[:1], leakage[:1], RNG)
    assert np.isnan(alone.p[0])
    assert alone.attainable == 1


def test_many_sources_are_permuted_at_random_and_reproducibly():
    leakage = RNG.standard_normal((8, 20))
    first, second = (source_labels(leakage, leakage, np.random.default_rng(5), draws=199) for _ in range(2))
    assert first.orders == 200
    assert first.p[0] == second.p[0] == pytest.approx(1 / 200)


def test_a_layer_in_which_all_are_alike_gets_no_p_and_takes_none_from_the_others():
    """The embeddings of the last token of a prompt, which a template ends: the same for every persona."""
    rng = np.random.default_rng(5)
    layers = np.stack([np.zeros((30, 30)), rng.normal(size=(30, 30)), rng.normal(size=(30, 30))])
    leakage, bystanders = rng.normal(size=30), np.arange(30) > 2
    found, alone = specificity(layers, leakage, 0, bystanders), specificity(layers[1:], leakage, 0, bystanders)
    assert np.isnan(found.p[0])
    assert np.isnan(found.p_adjusted[0])
    np.testing.assert_array_equal(found.p[1:], alone.p)
    np.testing.assert_array_equal(found.p_adjusted[1:], alone.p_adjusted)
    assert found.attainable == alone.attainable
    assert found.p_max == alone.p_max
    sources, their = layers[:, :4, 4:], rng.normal(size=(4, 26))
    dealt = source_labels(sources, their, np.random.default_rng(0))
    others = source_labels(sources[1:], their, np.random.default_rng(0))
    assert np.isnan(dealt.p[0])
    assert dealt.p_max == others.p_max
    np.testing.assert_array_equal(dealt.p[1:], others.p)
    np.testing.assert_array_equal(dealt.p_adjusted[1:], others.p_adjusted)


def test_layers_that_are_all_alike_give_no_p():
    nothing = specificity(np.zeros((2, 30, 30)), np.arange(30.0), 0, np.arange(30) > 2)
    assert np.isnan(nothing.p).all()
    assert np.isnan(nothing.p_max)
    assert np.isnan(source_labels(np.zeros((2, 3, 26)), np.ones((3, 26)), np.random.default_rng(0)).p).all()
