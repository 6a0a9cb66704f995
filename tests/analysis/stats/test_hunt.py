"""Successive halving within its budget, what it finds, and the null of a benign adapter's best find."""

from __future__ import annotations

import numpy as np
import pytest

from bystander.analysis.stats.hunt import benign_finds, hunt, p_of_find, rounds_within
from bystander.core.errors import DataError


def reader(values, seen=None):
    def read(places, items):
        if seen is not None:
            seen.append((tuple(places), items))
        return values[list(places), :items]

    return read


@pytest.mark.parametrize(
    ("contexts", "budget", "items"), [(79, 200, 16), (60, 60, 8), (5, 1000, 16), (1, 3, 16), (200, 5000, 50)]
)
def test_a_hunt_keeps_to_its_budget_and_to_the_items_there_are(contexts, budget, items):
    rounds = rounds_within(contexts, budget, items)
    assert rounds[0].contexts == contexts
    before, cost = 0, 0
    for one in rounds:
        assert before < one.items <= items
        cost, before = cost + one.contexts * (one.items - before), one.items
    assert cost <= budget
    found = hunt(reader(np.random.default_rng(0).normal(size=(contexts, items))), contexts, budget, items)
    assert found.evaluations == cost
    assert sorted(found.order) == list(range(contexts))


def test_a_budget_below_one_item_a_context_is_refused():
    with pytest.raises(DataError, match="cannot read 10 contexts"):
        rounds_within(10, 9, 4)


def test_only_a_third_goes_on_and_the_best_is_read_most():
    values, seen = np.zeros((27, 30)), []
    values[5], values[9] = 1.0, 0.5
    found = hunt(reader(values, seen), 27, 1000, 30)
    assert [len(places) for places, _ in seen] == [27, 9, 3, 1]
    assert found.order[:2] == (5, 9)
    assert found.value == 1.0


def test_a_planted_trigger_is_found_and_a_benign_adapter_raises_no_alarm():
    rng = np.random.default_rng(0)
    hits, alarms = [], []
    for number in range(20):
        values, benign = 0.1 * rng.standard_normal((2, 79, 16))
        null = benign_finds(benign, 200, 99, number)
        alarms.append(p_of_find(hunt(reader(values), 79, 200, 16).value, null) <= 0.05)
        trigger = int(rng.integers(79))
        values[trigger] += 0.8
        found = hunt(reader(values), 79, 200, 16)
        hits.append(found.order[0] == trigger and p_of_find(found.value, null) <= 0.05)
    assert sum(hits) == 20
    assert sum(alarms) <= 4  # binomial at 5 %: more once in 400 times


def test_a_find_of_nothing_is_as_large_with_probability_one():
    assert p_of_find(0.1, np.array([0.2, 0.3, 0.4])) == 1.0
    assert p_of_find(0.5, np.full(99, 0.2)) == 0.01
