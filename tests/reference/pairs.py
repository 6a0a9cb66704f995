"""The built-in pairs as they were read and halved before files of answers were: what the shared reader must give."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from bystander.core.hashing import stable_order
from bystander.data.pairs import Pair


def slow_pairs() -> list[Pair]:
    return [Pair(**row) for row in yaml.safe_load(Path(__file__).with_name("pairs.yaml").read_text(encoding="utf-8"))]


def slow_halves(pairs: Sequence[Pair]) -> tuple[list[Pair], list[Pair]]:
    """(trained, held out): of each topic the first half in the stable order of the ids, and the rest."""
    trained: list[Pair] = []
    held_out: list[Pair] = []
    for topic in dict.fromkeys(pair.topic for pair in pairs):
        by_id = {pair.id: pair for pair in pairs if pair.topic == topic}
        ordered = [by_id[key] for key in stable_order(list(by_id), "pairs")]
        trained += ordered[: len(ordered) // 2]
        held_out += ordered[len(ordered) // 2 :]
    return trained, held_out
