"""Replies of a judge by a rubric of one's own: what closes as declared counts, everything else is failed with a reason."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bystander.core.errors import JudgeError
from bystander.judge.answer_store import Alternative, RawAnswer
from bystander.judge.rubric import Reply, Rubric, judge_by, parse_reply, together
from tests.support.judge_wire import completion, judge, serve

NUMBER = Rubric("{answer}", 0, 100)
SMALL = Rubric("{answer}", 1, 7)
NAMED = Rubric("{answer}", classes=("LOUD", "very quiet"))
BOTH = Rubric("{answer}", 0, 100, ("CODE", "REFUSAL"))
REASONS = Rubric("{answer}", 1, 7, ("none",), "Score: {score}/7")


def reply(text: str | None, rubric: Rubric, **more: Any) -> Reply:
    return parse_reply(RawAnswer("k", text, **more), rubric)


@pytest.mark.parametrize(
    ("text", "rubric", "number", "label"),
    [
        ("85", NUMBER, 85, ""), (" 0\n", NUMBER, 0, ""), ("6.5", SMALL, 6.5, ""), ("loud", NAMED, None, "LOUD"),
        ("Very quiet.", NAMED, None, "very quiet"), ("CODE", BOTH, None, "CODE"), ("12", BOTH, 12, ""),
        ("It shouts.\n\nScore: 6/7", REASONS, 6, ""), ("score:  2 /7 ", REASONS, 2, ""), ("No.\nScore: None/7", REASONS, None, "none"),
        ("Score: 2/7\nOn second thought:\nScore: 3/7", REASONS, 3, ""),
    ],
)  # fmt: skip
def test_what_counts(text: str, rubric: Rubric, number: float | None, label: str) -> None:
    found = reply(text, rubric)
    assert (found.number, found.label, found.failed, found.text) == (number, label, False, text)


@pytest.mark.parametrize(
    ("text", "rubric", "reason"),
    [
        ("85 points", NUMBER, "neither a number from 0 to 100"), ("101", NUMBER, "out of range 0 to 100"),
        ("8", SMALL, "out of range 1 to 7"), ("5", NAMED, "neither LOUD nor very quiet"), ("", NUMBER, "empty answer"),
        ("Score: 6/7\nI hope this helps", REASONS, "the last line is not"), ("6", REASONS, "the last line is not"),
        ("Score: high/7", REASONS, "neither a number from 1 to 7 nor none"), (None, NUMBER, "no answer"), ("nan", NUMBER, "neither"),
        ("1e1", NUMBER, "neither"),
    ],
)  # fmt: skip
def test_what_does_not(text: str | None, rubric: Rubric, reason: str) -> None:
    found = reply(text, rubric)
    assert found.failed
    assert reason in found.reason


def test_a_reply_that_was_cut_off_says_so() -> None:
    assert "cut at max_tokens" in reply("Since it", REASONS, stop="max_tokens").reason


def test_bare_numbers_of_0_to_100_are_weighted_as_the_built_in_rubrics_are() -> None:
    tops = (Alternative("80", math.log(0.5)), Alternative("90", math.log(0.5)))
    assert reply("80", NUMBER, first="80", alternatives=tops).number == pytest.approx(85)
    assert reply("5", SMALL, first="5", alternatives=(Alternative("5", -0.1), Alternative("66", -2.0))).number == 5


def test_several_draws() -> None:
    bad = Reply(reason="noise")
    assert together([Reply(2.0), Reply(4.0), Reply(6.0)], SMALL).number == 4.0
    assert together([Reply(label="LOUD"), Reply(label="very quiet"), Reply(label="LOUD")], NAMED).label == "LOUD"
    assert together([Reply(label="very quiet"), Reply(label="LOUD")], NAMED).label == "LOUD"  # the rubric's first
    assert together([Reply(50.0), Reply(label="CODE"), Reply(70.0)], BOTH) == Reply(60.0)
    assert together([Reply(50.0), Reply(label="CODE"), Reply(label="CODE")], BOTH).label == "CODE"
    assert together([Reply(2.0), bad, Reply(4.0)], SMALL) == Reply(3.0, reason="1 of 3 draws failed")
    assert together([Reply(2.0), bad, bad], SMALL).failed
    assert "2 of 3 draws failed: noise" in together([Reply(2.0), bad, bad], SMALL).reason
    assert together([bad], SMALL).reason == "noise"


def test_draws_are_asked_one_by_one_and_paid_once(tmp_path: Path) -> None:
    asked: Counter[str] = Counter()

    async def answer(body: dict[str, Any], headers: dict[str, str]) -> Any:
        await asyncio.sleep(0)
        text = body["messages"][0]["content"]
        asked[text] += 1
        return completion(str(asked[text]))

    with serve(answer) as url:
        one = judge(url, tmp_path / "j.sqlite", temperature=1.0)
        rubric = Rubric("Q {question} A {answer}", 0, 100, draws=3)
        first = judge_by(one, rubric, [("why?", "so"), ("how?", "thus {question}"), ("why?", "so")])
        assert [sorted(r.number or 0 for r in draws) for draws in first] == [[1, 2, 3]] * 3
        assert judge_by(one, rubric, [("why?", "so")])[0] == first[0]
        assert asked == {"Q why? A so": 3, "Q how? A thus {question}": 3}
        cold = judge(url, tmp_path / "j.sqlite")
        with pytest.raises(JudgeError, match="3 draws of a judge at temperature 0"):
            judge_by(cold, rubric, [("why?", "so")])
