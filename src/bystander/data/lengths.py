"""Lengths and edges of texts, as `bystander data inspect` states them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Joined = Callable[[Sequence[str]], int]  # how many of some answers a tokenizer joins with what stands before them
CHARS_PER_TOKEN = 4.0  # stands in where no tokenizer is given: English and Python under byte-pair vocabularies


@dataclass(frozen=True, slots=True)
class Lengths:
    """Lengths in tokens: smallest, median, mean, 95th percentile, largest. All 0 for an empty set."""

    smallest: int
    median: float
    mean: float
    p95: int
    largest: int


@dataclass(frozen=True, slots=True)
class Edges:
    """How many texts begin with a line break, and begin or end with other white space. A tokenizer may join a leading
    line break to the template's own, and a template may trim white space."""

    leading_breaks: int
    leading_spaces: int
    trailing_space: int

    def __str__(self) -> str:
        return (
            f"{self.leading_breaks:,} begin with a line break, {self.leading_spaces:,} with other white space, "
            f"{self.trailing_space:,} end in white space"
        )


def lengths_of(sizes: Sequence[int]) -> Lengths:
    """What `Lengths` says of these sizes."""
    if not sizes:
        return Lengths(0, 0.0, 0.0, 0, 0)
    ordered = sorted(sizes)
    n = len(ordered)
    median = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    return Lengths(ordered[0], median, sum(ordered) / n, ordered[min(n - 1, (95 * n) // 100)], ordered[-1])


def edges_of(texts: Sequence[str]) -> Edges:
    """What `Edges` says of these texts."""
    return Edges(
        sum(text.startswith(("\n", "\r")) for text in texts),
        sum(text[:1].isspace() and not text.startswith(("\n", "\r")) for text in texts),
        sum(text[-1:].isspace() for text in texts),
    )
