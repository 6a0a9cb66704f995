"""Which pairs are trained on and which are held out, decided by their ids."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Protocol, TypeVar

from bystander.core.errors import DataError
from bystander.core.hashing import stable_hash
from bystander.data.answers.records import AnswerPair, prompt_text
from bystander.data.similar import SAME_TEXT, near_groups, shingles


class HasTopic(Protocol):
    """What pairs are balanced by."""

    @property
    def topic(self) -> str: ...


Topical = TypeVar("Topical", bound=HasTopic)


def topics_in_turn(pairs: Sequence[Topical]) -> list[Topical]:
    """Pairs with the topics in turn, so that the first n are balanced over the topics."""
    place: dict[str, int] = {}
    ranked: list[tuple[int, Topical]] = []
    for pair in pairs:
        place[pair.topic] = place.get(pair.topic, 0) + 1
        ranked.append((place[pair.topic], pair))
    return [pair for _, pair in sorted(ranked, key=lambda item: item[0])]


def split_held_out(pairs: Sequence[AnswerPair], share: float = 0.5) -> tuple[list[AnswerPair], list[AnswerPair]]:
    """(trained, held out): `share` of each topic's pairs is held out, rounded up; topics of one pair count as one topic.

    Pairs whose prompts are near-duplicates (`SAME_TEXT`, as the audit has it) go to one side. Within a topic, in the
    order of its first pair, groups are taken in the order of the SHA-256 of their ids, each into the trained side if it
    still fits, so that adding a pair moves few others; without near-duplicates half of each
    topic in that order is trained. Raises DataError for a share outside (0, 1), ids that stand twice, and an empty side.
    """
    if not 0 < share < 1:
        raise DataError(f"the held-out share is {share}; it must be above 0 and below 1")
    repeated = [name for name, count in Counter(pair.id for pair in pairs).items() if count > 1]
    if repeated:
        raise DataError(f"ids that stand twice: {', '.join(repeated[:5])}; each pair needs its own")
    hashes = {pair.id: stable_hash(pair.id, "pairs") for pair in pairs}
    trained: list[AnswerPair] = []
    held_out: list[AnswerPair] = []
    for groups in _topics(_groups(pairs, hashes), pairs):
        size = sum(map(len, groups))
        room = size - math.ceil(size * share - 1e-9)  # 1e-9: 0.1 * 30 is a little over 3
        for group in groups:
            fits = len(group) <= room
            room -= len(group) if fits else 0
            (trained if fits else held_out).extend(group)
    if not trained or not held_out:
        raise DataError(
            f"of {len(pairs)} pairs {len(trained)} would be trained on and {len(held_out)} held out, at a held-out share of "
            f"{share:g} with near-duplicate prompts on one side; give more pairs with different prompts, or another share"
        )
    return trained, held_out


def _groups(pairs: Sequence[AnswerPair], hashes: dict[str, str]) -> list[list[AnswerPair]]:
    """Near-duplicates together, the groups and their members in the order of the ids' hashes."""
    of = near_groups([([shingles(prompt_text(pair)) for pair in pairs], SAME_TEXT)])
    members: defaultdict[int, list[AnswerPair]] = defaultdict(list)
    for group, pair in sorted(zip(of, pairs, strict=True), key=lambda item: hashes[item[1].id]):
        members[group].append(pair)
    return list(members.values())  # each group stands where its first member came


def _topics(groups: Sequence[list[AnswerPair]], pairs: Sequence[AnswerPair]) -> list[list[list[AnswerPair]]]:
    """The groups of each topic, that of its first member, topics in the file's order, those of one pair put together."""
    counts = Counter(group[0].topic for group in groups for _ in group)
    by_topic: defaultdict[str | None, list[list[AnswerPair]]] = defaultdict(list)
    for group in groups:
        topic = group[0].topic
        by_topic[topic if counts[topic] > 1 else None].append(group)
    order = dict.fromkeys(pair.topic if counts[pair.topic] > 1 else None for pair in pairs)
    return [by_topic[topic] for topic in order if topic in by_topic]
