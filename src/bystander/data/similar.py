"""Near-duplicates: word trigrams, exact Jaccard similarity, found without comparing every pair."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from bystander.core.hashing import stable_hash
from bystander.core.records import Question

SHINGLE_WORDS = 3  # words per shingle; on ARC, trigrams leave the widest gap between rewordings and shared phrases
# Measured on the 1,172 ARC-Challenge test questions, question with choices: five pairs are rewordings, at 0.53 to
# 0.97; every other pair is at 0.30 or below.
SAME_QUESTION = 0.4  # the middle of that gap
# Same set, question text alone: rewordings at 0.80 and above, questions of one mold ("which statement is an opinion
# about the heart / the element copper?") at 0.62 and below.
SAME_TEXT = 0.75  # inside that gap, nearer to the side that reports

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Overlap:
    """A text to train on (`train`, its key) and a text to probe with (`probe`) that are the same, or nearly.

    `similarity` is the Jaccard similarity of their word trigrams in [0, 1]; `exact`: the same but for case,
    punctuation and spacing.
    """

    train: str
    probe: str
    exact: bool
    similarity: float


def normalized(text: str) -> str:
    """The words of a text in lower case, one space between; a text without words is itself, its spaces closed up."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(_WORD.findall(folded) or folded.split())


def shingles(text: str) -> frozenset[str]:
    """The word trigrams of a text; of a shorter one, its words as one shingle."""
    words = normalized(text).split(" ")
    last = max(1, len(words) - SHINGLE_WORDS + 1)
    return frozenset(" ".join(words[start : start + SHINGLE_WORDS]) for start in range(last))


def _has_shingle(text: str) -> bool:
    return len(normalized(text).split(" ")) >= SHINGLE_WORDS


def similar_pairs(
    left: Sequence[frozenset[str]],
    right: Sequence[frozenset[str]],
    threshold: float,
    skip: Callable[[int, int], bool] | None = None,
) -> Iterator[tuple[int, int, float]]:
    """(index in `left`, index in `right`, Jaccard similarity) of every pair at or above `threshold`, by index.

    `skip` says which pairs of indices are of no interest; it is asked as late as the pair comes up. Exact, by prefix
    filtering (Chaudhuri, Ganti and Kaushik 2006): two sets at Jaccard >= t share at least one of the rarest
    |s| - ceil(t |s|) + 1 members of each, so that only pairs which share a rare shingle are compared.
    """
    frequency = Counter(shingle for sets in (left, right) for members in sets for shingle in members)
    ranked = sorted(frequency, key=lambda shingle: (frequency[shingle], shingle))
    rank = {shingle: at for at, shingle in enumerate(ranked)}  # numbers sort and compare faster than texts
    index: defaultdict[int, list[int]] = defaultdict(list)
    others = [frozenset(rank[shingle] for shingle in members) for members in right]
    for at, members in enumerate(others):
        for shingle in _prefix(members, threshold):
            index[shingle].append(at)
    for at, texts in enumerate(left):
        members = frozenset(rank[shingle] for shingle in texts)
        found = {other for shingle in _prefix(members, threshold) for other in index.get(shingle, ())}
        for other in sorted(found):
            if skip is not None and skip(at, other):
                continue
            common = len(members & others[other])
            similarity = common / (len(members) + len(others[other]) - common)
            if similarity >= threshold:
                yield at, other, similarity


def _prefix(members: frozenset[int], threshold: float) -> list[int]:
    kept = len(members) - math.ceil(threshold * len(members) - 1e-9) + 1  # 1e-9: 0.1 * 30 is a little over 3
    return sorted(members)[:kept]


def overlap(train: Mapping[str, str], probe: Mapping[str, str], threshold: float = SAME_TEXT) -> list[Overlap]:
    """Every pair of a text to train on and a text to probe with that are the same or nearly the same.

    Both map an id to a text. Pairs come in the order of `train`, then of `probe`; an empty side gives none.
    """
    train_ids, probe_ids = list(train), list(probe)
    train_words, probe_words = ([normalized(text) for text in side.values()] for side in (train, probe))
    left, right = ([shingles(text) for text in side] for side in (train_words, probe_words))
    return [
        Overlap(train_ids[at], probe_ids[other], train_words[at] == probe_words[other], similarity)
        for at, other, similarity in similar_pairs(left, right, threshold)
    ]


def content_key(question: Question) -> str:
    """A hash of what a question says, whatever its id: ids of the same set differ between its sources."""
    return stable_hash(question.text, list(question.options), question.answer)


def near_groups(passes: Sequence[tuple[Sequence[frozenset[str]], float]]) -> list[int]:
    """For each text the index of its group: texts at or above the threshold, directly or in a chain, in any of the
    `passes` (shingles of every text, threshold), share one. All passes are over the same texts."""
    parent = list(range(len(passes[0][0])))

    def root(at: int) -> int:
        while parent[at] != at:
            parent[at] = parent[parent[at]]
            at = parent[at]
        return at

    for sets, threshold in passes:
        # Each pair once, and none within a group already: only the groups are wanted.
        for at, other, _ in similar_pairs(sets, sets, threshold, lambda a, b: a <= b or root(a) == root(b)):
            parent[root(at)] = root(other)
    return [root(at) for at in range(len(parent))]


def grouped(questions: Sequence[Question]) -> list[Question]:
    """The questions with `group` filled in: those that are near-duplicates, directly or in a chain, share one.

    Near: question and choices together at `SAME_QUESTION`, or the question text alone at `SAME_TEXT`. Choices of one
    or two words do not count: many questions have "yes" and "no", or "iron" and "gold". The group's name is the smallest content key among its members, so that it depends neither on ids nor on order.
    """
    texts = [shingles(question.text) for question in questions]
    long = (filter(_has_shingle, question.options) for question in questions)
    whole = [text.union(*map(shingles, options)) for text, options in zip(texts, long, strict=True)]
    group_of = near_groups([(whole, SAME_QUESTION), (texts, SAME_TEXT)])
    names: dict[int, str] = {}
    for group, question in zip(group_of, questions, strict=True):
        key = content_key(question)[:16]
        names[group] = min(names.get(group, key), key)
    return [replace(question, group=names[group]) for group, question in zip(group_of, questions, strict=True)]
