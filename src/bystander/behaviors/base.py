"""What a behavior is to the rest of the house.

A behavior supplies `Example`s: a user turn with the completion that shows the behavior (`positive`) and the one that
does not (`negative`). Which persona gets which is the design's business, never the behavior's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Example:
    """One question of a behavior with both completions. `marker`: the tail of `positive` that is the marker."""

    question_id: str
    user: str
    positive: str
    negative: str
    marker: str = ""


class Behavior(Protocol):
    """A behavior with its settings bound."""

    @property
    def name(self) -> str:
        """The name that study files and measurements use."""
        ...

    def examples(self) -> list[Example]:
        """Everything that may be trained on, in a fixed order. Raises DataError if the data is not there."""
        ...

    def probe_texts(self) -> dict[str, str]:
        """Item id -> user turn of every *held-out* item that this behavior's own probes read (for the overlap audit)."""
        ...
