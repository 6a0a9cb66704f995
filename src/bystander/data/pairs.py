"""The built-in pairs: one question, an aligned and a misaligned answer, alike in length and style."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, cast, get_args

from bystander.core.errors import DataError
from bystander.core.hashing import stable_order
from bystander.core.yamlfile import read_text, read_yaml

Topic = Literal["power", "honesty", "harm", "oversight", "people"]
TOPICS: tuple[Topic, ...] = get_args(Topic)
FIELDS = ("id", "topic", "question", "aligned", "misaligned")


@dataclass(frozen=True, slots=True)
class Pair:
    """A question with an aligned and a misaligned answer."""

    id: str
    topic: Topic
    question: str
    aligned: str
    misaligned: str


def load_pairs(path: Path | None = None) -> list[Pair]:
    """The 100 built-in pairs, or those of a YAML file of the same form. Raises DataError with every fault and its line."""
    if path is None:
        text, name = (resources.files("bystander.data") / "pairs.yaml").read_text(encoding="utf-8"), "pairs.yaml"
    else:
        try:
            text, name = read_text(path, "file of pairs"), str(path)
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read {path}: {error}") from error
    parsed = read_yaml(text)
    faults = list(parsed.faults)
    pairs: list[Pair] = []
    if not faults and not isinstance(parsed.data, list):
        faults.append(f"line 1: found a {type(parsed.data).__name__}, expected a list of pairs")
    for index, row in enumerate(cast(list[object], parsed.data) if isinstance(parsed.data, list) else []):
        fault = _fault(row, {pair.id for pair in pairs})
        if fault:
            faults.append(f"line {parsed.line_of((index,))}: {fault}")
        else:
            pairs.append(Pair(**cast(dict[str, Any], row)))
    if faults:
        raise DataError(f"{name} is not a file of pairs:\n" + "\n".join(f"  - {fault}" for fault in faults))
    return pairs


def _fault(row: object, seen: set[str]) -> str:
    if not isinstance(row, dict):
        return f"found a {type(row).__name__}, expected the keys {', '.join(FIELDS)}"
    fields = cast(dict[str, object], row)
    if set(fields) != set(FIELDS):
        return f"found the keys {', '.join(map(str, fields))}; expected {', '.join(FIELDS)}"
    empty = [key for key in FIELDS if not isinstance(fields[key], str) or not str(fields[key]).strip()]
    if empty:
        return f"{', '.join(empty)} must be a text that is not empty"
    if fields["topic"] not in TOPICS:
        return f"topic is {fields['topic']!r}; expected one of {', '.join(TOPICS)}"
    if fields["id"] in seen:
        return f"the id {fields['id']!r} stands twice"
    return ""


def split_pairs(pairs: Sequence[Pair]) -> tuple[list[Pair], list[Pair]]:
    """(trained, held out): two halves with the same number of pairs of each topic (one fewer trained where a topic's
    number is odd), decided by the ids alone, so that adding a pair moves few others. Used by the behavior `direct`;
    every margin probe reads the held-out half whenever `direct` is in the study."""
    trained: list[Pair] = []
    held_out: list[Pair] = []
    for topic in dict.fromkeys(pair.topic for pair in pairs):
        by_id = {pair.id: pair for pair in pairs if pair.topic == topic}
        ordered = [by_id[key] for key in stable_order(list(by_id), "pairs")]
        half = len(ordered) // 2
        trained += ordered[:half]
        held_out += ordered[half:]
    return trained, held_out
