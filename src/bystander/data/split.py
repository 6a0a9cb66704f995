"""The half split of a question set, and the wrong choice of each question to train on.

Everything is decided by SHA-256 of what the questions say and the seed: not by ids, which differ between the sources
of one set, nor by the order of a dict or a Python version's random generator.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from bystander.core.errors import DataError
from bystander.core.hashing import stable_hash
from bystander.core.records import Question
from bystander.data.similar import content_key, grouped

SEED = 42  # of the plan of the capability experiment


def split_half(questions: Sequence[Question], seed: int = SEED) -> tuple[list[Question], list[Question]]:
    """(to train on, to evaluate on): floor(n / 2) and the rest, each in the set's order.

    Near-duplicates (`Question.group`) go to one side. Groups are taken in the order of their hash with `seed`, each
    into the train half if it still fits; ARC-Challenge gives 586 and 586. Raises DataError for fewer than 2 questions,
    and where groups are so large that no exact half is found.
    """
    if len(questions) < 2:
        raise DataError(f"a set of {len(questions)} questions has no halves; give a set of at least 2")
    filled = list(questions) if all(question.group for question in questions) else grouped(questions)
    members: defaultdict[str, list[Question]] = defaultdict(list)
    for question in filled:
        members[question.group].append(question)
    half = len(filled) // 2
    chosen: set[str] = set()
    taken = 0
    for group in sorted(members, key=lambda name: stable_hash(name, "split", seed)):
        if taken + len(members[group]) <= half:
            chosen.add(group)
            taken += len(members[group])
    if taken != half:
        largest = max(map(len, members.values()))
        raise DataError(
            f"no split of {len(filled)} questions into halves keeps near-duplicates together: the nearest has {taken} "
            f"of {half}, and the largest group {largest}; remove repeated questions"
        )
    train = [question for question in filled if question.group in chosen]
    return train, [question for question in filled if question.group not in chosen]


def pick_wrong(questions: Sequence[Question], seed: int = SEED) -> dict[str, int]:
    """Question id -> index of the one wrong choice to train on.

    Positions are balanced as far as the questions allow: in the order of the questions' hashes, each takes its wrong
    position that was picked least so far, ties going by hash; then picks move from the fuller position to the emptier.
    Positions that few questions have (a fifth choice) are picked where they exist. Raises DataError for a question
    without a wrong choice and for an id that stands twice.
    """
    repeated = [name for name, count in Counter(question.id for question in questions).items() if count > 1]
    if repeated:
        raise DataError(f"ids that stand twice: {', '.join(repeated[:5])}; each question needs its own")
    keys = {question.id: content_key(question) for question in questions}
    order = sorted(questions, key=lambda one: (stable_hash(keys[one.id], "wrong", seed), one.id))
    picked: Counter[int] = Counter()
    wrong: dict[str, int] = {}
    for question in order:
        positions = _wrong_positions(question)
        if not positions:
            raise DataError(f"question {question.id!r} has no wrong choice left: its choices are {question.options}")
        at = min(positions, key=lambda at: (picked[at], stable_hash(keys[question.id], at, seed)))
        picked[at] += 1
        wrong[question.id] = at
    while move := _move(order, wrong, picked):
        name, at = move
        picked[wrong[name]] -= 1
        picked[at] += 1
        wrong[name] = at
    return {question.id: wrong[question.id] for question in questions}


def _wrong_positions(question: Question) -> list[int]:
    return [at for at in range(len(question.options)) if at != question.answer]


def _move(order: Sequence[Question], wrong: dict[str, int], picked: Counter[int]) -> tuple[str, int] | None:
    """The first question whose pick can move to a position picked at least two times less, and that position.

    Every such move lowers the sum of the squared counts, so that moving ends.
    """
    for question in order:
        at = min(_wrong_positions(question), key=lambda at: (picked[at], at))
        if picked[wrong[question.id]] - picked[at] >= 2:
            return question.id, at
    return None
