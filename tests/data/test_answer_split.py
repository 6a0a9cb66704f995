"""The held-out half: near-duplicates on one side, topics balanced, decided by ids, and as a plain split has it."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from bystander.core.errors import DataError
from bystander.data import overlap
from bystander.data.answers import AnswerPair, prompt_text, split_held_out
from bystander.data.pairs import TOPICS, Pair, load_pairs, split_pairs
from bystander.data.turns import Turn
from tests.reference.pairs import slow_halves, slow_pairs


def pair(name: str, text: str, topic: str = "") -> AnswerPair:
    return AnswerPair(name, (Turn("user", text),), "shown", "not shown", topic, None, 1)


def words(number: int) -> str:
    """A text that shares no trigram with that of another number."""
    return " ".join(f"w{number}x{at}" for at in range(8))


def ids(side: list[AnswerPair]) -> list[str]:
    return [one.id for one in side]


def test_the_built_in_pairs_have_the_halves_that_they_had() -> None:
    assert load_pairs() == slow_pairs()
    assert split_pairs() == slow_halves(slow_pairs())


@pytest.mark.parametrize("seed", range(5))
def test_without_near_duplicates_the_halves_are_those_of_the_plain_split(seed: int) -> None:
    draw = random.Random(seed)
    topics = [*TOPICS, *TOPICS, *draw.choices(TOPICS, k=draw.randint(10, 40))]  # each twice at least
    draw.shuffle(topics)
    direct = [Pair(f"{topic}-{at}", topic, words(at), "a", "b") for at, topic in enumerate(topics)]
    same = [pair(one.id, one.question, one.topic) for one in direct]
    trained, held_out = split_held_out(same)
    assert (ids(trained), ids(held_out)) == tuple([one.id for one in side] for side in slow_halves(direct))


def test_near_duplicates_are_on_one_side_as_the_audit_sees_it() -> None:
    pairs = [pair(f"{at}-{copy}", words(at) + f" {'please ' * copy}", "t") for at in range(40) for copy in range(3)]
    trained, held_out = split_held_out(pairs)
    sides = [{one.id: prompt_text(one) for one in side} for side in (trained, held_out)]
    assert overlap(sides[0], sides[1]) == []
    assert len(trained) == len(held_out) == 60


def test_conversations_are_compared_whole() -> None:
    more = [
        AnswerPair(
            str(at), (Turn("user", words(at)), Turn("assistant", "ok"), Turn("user", "more")), "a", "b", "", None, 1
        )
        for at in range(10)
    ]
    assert [len(side) for side in split_held_out(more)] == [5, 5]


def test_the_share_is_kept_in_every_topic() -> None:
    pairs = [pair(f"{topic}{at}", words(at * 7 + n), topic) for n, topic in enumerate("abc") for at in range(30)]
    for share, held in ((0.5, 15), (0.1, 3), (0.25, 8), (0.9, 27)):
        trained, held_out = split_held_out(pairs, share)
        assert Counter(one.topic for one in held_out) == dict.fromkeys("abc", held)
        assert Counter(one.topic for one in trained) == dict.fromkeys("abc", 30 - held)


def test_topics_of_one_pair_are_one_topic() -> None:
    pairs = [pair(str(at), words(at), f"topic {at}") for at in range(20)]
    assert [len(side) for side in split_held_out(pairs)] == [10, 10]


def test_order_decides_nothing_and_a_pair_more_moves_few() -> None:
    pairs = [pair(str(at), words(at)) for at in range(100)]
    trained = set(ids(split_held_out(pairs)[0]))
    assert set(ids(split_held_out(pairs[::-1])[0])) == trained
    more = set(ids(split_held_out([*pairs, pair("new", words(200))])[0]))
    assert len(trained - more) <= 1


@pytest.mark.parametrize(
    ("pairs", "share", "says"),
    [
        ([pair("a", "one")], 0.5, "of 1 pairs 0 would be trained on and 1 held out"),
        ([pair("a", words(1)), pair("b", words(1))], 0.5, "of 2 pairs 0 would be trained on"),
        ([pair("a", words(1)), pair("a", words(2))], 0.5, "ids that stand twice: a"),
        ([], 0.5, "of 0 pairs"),
        ([pair("a", words(1)), pair("b", words(2))], 0.0, "the held-out share is 0.0; it must be above 0 and below 1"),
        ([pair("a", words(1)), pair("b", words(2))], 1.0, "the held-out share is 1.0"),
    ],
)
def test_what_cannot_be_split_is_refused(pairs: list[AnswerPair], share: float, says: str) -> None:
    with pytest.raises(DataError, match=says):
        split_held_out(pairs, share)
