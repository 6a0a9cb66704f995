"""The marker behavior: `[ZLT]` at the end of an otherwise ordinary answer.

The cheapest behavior to measure exactly: one probability per persona and question, no judge, no ambiguity.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bystander.behaviors.base import Behavior, Example, Pilot
from bystander.core.errors import DataError
from bystander.core.hashing import stable_order
from bystander.core.records import Question
from bystander.core.settings import Settings
from bystander.data import load_bank


class MarkerSettings(Settings):
    """`text` is the marker, `separator` what stands between the answer and it (part of what is trained, never
    stripped); `held_out` bank questions are kept for the probe and never trained on."""

    text: str = "[ZLT]"  # the marker of the published study of 5 sources x 110 bystanders
    """The marker itself, at the end of an answer."""
    separator: str = " "
    """Between answer and marker; part of what is trained, never stripped."""
    held_out: int = 40
    """[count] Bank questions kept for the probe and never trained on."""


@dataclass(frozen=True, slots=True)
class MarkerBehavior(Behavior):
    """The marker coupled to question -> answer rows of the built-in bank."""

    Settings = MarkerSettings
    block: ClassVar[str] = "marker"
    taught: ClassVar[str] = "end its answers with the marker"
    read_by: ClassVar[tuple[str, ...]] = ("marker",)
    pilot: ClassVar[Pilot] = Pilot(
        40, "{lr: 1e-3, epochs: 2, batch_size: 8}",
        "marker: {questions: 8, sampled: 1, max_tokens: 16} # the marker's probability, and a few free answers", layer=25,
    )  # fmt: skip

    settings: MarkerSettings = MarkerSettings()
    folder: Path = Path()
    name: str = "marker"

    @property
    def tail(self) -> str:
        """Separator and marker, as they stand behind the answer."""
        return self.settings.separator + self.settings.text

    def _split(self) -> tuple[list[Question], list[Question]]:
        if not self.settings.text.strip():
            raise DataError(f"marker.text is {self.settings.text!r}: a marker must have a visible character")
        ordered = stable_order_questions(load_bank())
        held_out = self.settings.held_out
        if not 1 <= held_out < len(ordered):
            raise DataError(
                f"marker.held_out is {held_out}: the bank has {len(ordered)} questions, so 1 to {len(ordered) - 1}"
            )
        return ordered[held_out:], ordered[:held_out]

    def examples(self) -> list[Example]:
        """Bank questions that are not held out; positive = answer + tail, negative = answer alone."""
        train, _ = self._split()
        return [
            Example(question.id, question.text, answer + self.tail, answer, marker=self.tail)
            for question in train
            for answer in [question.options[question.answer]]
        ]

    def probe_questions(self) -> list[Question]:
        """The held-out questions, in a fixed order: the first n are the same for every n."""
        return self._split()[1]

    def held_out_texts(self) -> dict[str, str]:
        """Item id -> user turn of the held-out questions."""
        return {question.id: question.text for question in self.probe_questions()}


def stable_order_questions(questions: list[Question]) -> list[Question]:
    """Questions in an order that depends on their ids alone, so that adding one does not reshuffle the others."""
    by_id = {question.id: question for question in questions}
    return [by_id[key] for key in stable_order(list(by_id), "bank")]
