"""The mode check: the guessing tail is exact, the mode follows from it, and a blind instrument warns."""

from itertools import product
from math import prod

import pytest
from scipy.stats import binom

from bystander.probe.mode_check import ModeCheck, decide, guessing_tail, mode_check


def test_with_equal_numbers_of_choices_it_is_the_binomial_tail():
    for right in (0, 3, 25, 41, 100):
        assert guessing_tail(right, [4] * 100) == pytest.approx(binom.sf(right - 1, 100, 0.25), rel=1e-9)


def test_with_unequal_numbers_it_is_the_sum_over_all_outcomes():
    choices = [3, 4, 5, 4, 2]
    for right in range(6):
        by_hand = sum(
            prod(1 / c if hit else 1 - 1 / c for hit, c in zip(hits, choices, strict=True))
            for hits in product((0, 1), repeat=5)
            if sum(hits) >= right
        )
        assert guessing_tail(right, choices) == pytest.approx(by_hand, abs=1e-12)


def test_of_no_question_nothing_is_known():
    check = mode_check([], [])
    assert (check.questions, check.right, check.p, check.above_chance) == (0, 0, 1.0, False)


def test_chance_is_the_mean_over_the_questions():
    assert mode_check([True, False], [3, 5]).chance == pytest.approx((1 / 3 + 1 / 5) / 2)


GOOD, POOR = ModeCheck(200, 90, 0.25, 1e-9), ModeCheck(200, 52, 0.25, 0.4)


def test_label_where_it_is_above_chance():
    found = decide(GOOD, None)
    assert (found.mode, found.warning) == ("label", "")
    assert "90 of 200" in found.reason


def test_text_where_label_is_at_chance():
    found = decide(POOR, GOOD)
    assert (found.mode, found.warning) == ("text", "")
    assert "by label the untrained model is at chance (52 of 200" in found.reason


def test_where_neither_is_above_chance_it_says_so():
    found = decide(POOR, POOR)
    assert found.mode == "text"
    assert "may be blind" in found.warning


def test_without_labels_in_view_only_text_is_tried():
    found = decide(None, GOOD)
    assert (found.mode, found.label) == ("text", None)
    assert "not in view" in found.reason


def test_the_level_is_one_percent():
    # 63 of 200 at chance 0.25 has a tail of 0.0226; 66 one of 0.0069.
    assert not mode_check([True] * 63 + [False] * 137, [4] * 200).above_chance
    assert mode_check([True] * 66 + [False] * 134, [4] * 200).above_chance


@pytest.mark.parametrize(
    ("right", "questions", "has_room"),
    [
        (50, 200, False),  # a quarter of 200: at most 0.31 truly
        (35, 200, False),  # below chance: a letter bias
        (70, 200, True),  # above chance
        (110, 400, False),
        (2, 6, True),  # so few say nothing
        (0, 0, True),
    ],
)
def test_a_guesser_has_nothing_to_lose(right: int, questions: int, has_room: bool):
    check = mode_check([True] * right + [False] * (questions - right), [4] * questions)
    assert check.has_room is has_room
