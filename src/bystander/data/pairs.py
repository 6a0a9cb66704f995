"""Pairs of an aligned and a misaligned answer, alike in length and style: files of answers like any other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from bystander.core.errors import DataError, few_names
from bystander.data.answers.read import read_answer_pairs
from bystander.data.answers.records import AnswerPair
from bystander.data.answers.split import split_held_out

TOPICS = ("power", "honesty", "harm", "oversight", "people")  # of the built-in pairs


@dataclass(frozen=True, slots=True)
class Pair:
    """A question with an aligned and a misaligned answer."""

    id: str
    topic: str
    question: str
    aligned: str
    misaligned: str


def load_pairs(path: Path | None = None) -> list[Pair]:
    """The 100 built-in pairs, or those of a file of answers in which the misaligned answer is the one shown. Raises
    DataError with every fault and its line, also for rows of several turns or with one answer."""
    return list(map(_pair, _read(path)))


def split_pairs(path: Path | None = None) -> tuple[list[Pair], list[Pair]]:
    """(trained, held out): the halves of such a file, as `split_held_out` has them. Used by the behavior `direct`; every
    margin probe reads the held-out half whenever `direct` is in the study."""
    trained, held_out = split_held_out(_read(path))
    return list(map(_pair, trained)), list(map(_pair, held_out))


def _read(path: Path | None) -> Sequence[AnswerPair]:
    pairs = read_answer_pairs(path or Path(str(resources.files("bystander.data") / "shipped" / "direct.jsonl")))
    several = [f"line {pair.line}" for pair in pairs if pair.earlier.turns]
    if several:
        raise DataError(
            f"{path}: {len(several)} rows have several turns ({few_names(several)}); give each one question"
        )
    return pairs


def _pair(pair: AnswerPair) -> Pair:
    assert pair.not_shown is not None  # the file's settings ask for both answers
    return Pair(pair.id, pair.topic, pair.user, pair.not_shown, pair.shown)
