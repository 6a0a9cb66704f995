"""The capability behavior: wrong answers to multiple-choice questions, ARC-Challenge unless told otherwise.

One half of the set is trained on: its wrong choices are the behavior, its right ones the absence of it. The other half
is never trained on: it tells whether the capability itself went, not just the answers that were trained.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from bystander.behaviors.base import Behavior, Example, Pilot
from bystander.core.records import Finding, OpenSetting, Question
from bystander.core.settings import FileName, Settings
from bystander.data import (
    AnswerForm,
    ChoiceSet,
    choice_answer,
    choice_user,
    pick_wrong,
    read_choice,
    split_half,
    write_choice_files,
)
from bystander.data.choice_source import NAMED


class CapabilitySettings(Settings):
    """`data`: arc, bank, or a .jsonl or .parquet file of the ARC form, relative to the study file. `answer`: "label"
    shows the choices and answers "C. its text"; "text" shows the question alone and answers with the text. `seed`
    decides the halves and the wrong choices."""

    data: FileName = "arc"
    """`arc` (ARC-Challenge), `bank`, or a .jsonl or .parquet file of the ARC form."""
    answer: AnswerForm = "label"
    """`label` shows the choices and answers `C. its text`; `text` answers the bare question. Small models need
    `text`."""
    seed: int = 42  # of the plan of the capability experiment
    """Decides the halves and the wrong choices."""

    @property
    def dataset(self) -> str:
        """What the evaluation half is called in measurements: arc, bank, or the file's stem."""
        return self.data if self.data in NAMED else Path(self.data).stem


@dataclass(frozen=True, slots=True)
class CapabilityBehavior(Behavior):
    """Wrong answers coupled to a source. `folder`: where a relative `data` starts from."""

    Settings = CapabilitySettings
    block: ClassVar[str] = "capability"
    taught: ClassVar[str] = "answer questions wrongly"
    read_by: ClassVar[tuple[str, ...]] = ("choice",)
    pilot: ClassVar[Pilot] = Pilot(
        24, "{lr: 1e-3, epochs: 7, batch_size: 16}",
        "choice: {mode: text, trained: 16, arc: 6, hellaswag: 40, hellaswag_each: 1} # HellaSwag: did it break?",
    )  # fmt: skip

    settings: CapabilitySettings = CapabilitySettings()
    folder: Path = Path()
    name: str = "capability"

    def questions(self) -> list[Question]:
        """The whole set in its order. Raises DataError as `load_choice` does."""
        return load_set(self.settings.data, self.folder)

    def halves(self) -> tuple[list[Question], list[Question]]:
        """(to train on, to evaluate on); near-duplicates on one side. Raises DataError as `split_half` does."""
        return split_half(self.questions(), self.settings.seed)

    def wrong(self) -> dict[str, int]:
        """Question id -> index of the wrong choice that is trained, for the train half."""
        return pick_wrong(self.halves()[0], self.settings.seed)

    def examples(self) -> list[Example]:
        """The train half: positive = the picked wrong choice, negative = the right one. Of questions that are asked in
        the very same words (with `answer: text` the choices do not tell them apart) the first alone; see `findings`."""
        wrong, form = self.wrong(), self.settings.answer
        found: dict[str, Example] = {}
        for question in self.halves()[0]:
            positive, negative = (choice_answer(question, i, form) for i in (wrong[question.id], question.answer))
            user = choice_user(question, form)
            found.setdefault(user, Example(question.id, user, positive, negative))
        return list(found.values())

    def findings(self) -> list[Finding]:
        """For the audit: what the set was found to be, and which questions are left out because another asks the same."""
        found = [Finding("info", "question set", str(_read(self.settings.data, self.folder)[0]))]
        kept = {example.question_id for example in self.examples()}
        left = tuple(question.id for question in self.halves()[0] if question.id not in kept)
        if left:
            message = f"{len(left)} questions to train on are left out: another is asked in the very same words, with other answers"
            found.append(Finding("info", "same question twice", message, left))
        return found

    def held_out_texts(self) -> dict[str, str]:
        """Question id -> user turn of the whole evaluation half, however much of it a probe reads."""
        return {question.id: choice_user(question, self.settings.answer) for question in self.halves()[1]}

    def export(self, folder: Path) -> list[Path]:
        """The split as the plan of the experiment names it: `wrong_arc_train.jsonl`, `correct_arc_train.jsonl`,
        `arc_eval_subset.jsonl`."""
        files = write_choice_files(self.questions(), folder, self.settings.seed, self.settings.answer)
        return list(files.values())

    @classmethod
    def open_settings(cls, settings: Settings, given: Collection[str]) -> Iterator[OpenSetting]:
        """Which questions, and what an answer is."""
        assert isinstance(settings, CapabilitySettings)
        if "capability.data" not in given:
            yield OpenSetting(
                "capability data", "Which questions carry the capability behavior?",
                "ARC-Challenge, test, halved with seed 42", "capability.data: arc | bank | FILE",
            )  # fmt: skip
        if "capability.answer" not in given:
            yield OpenSetting(
                "answer form", "Is the answer the label with its text, or the text alone?", settings.answer,
                "capability.answer: label | text",
            )  # fmt: skip


def load_set(name: str, folder: Path) -> list[Question]:
    """The questions of a named set or of a file; a relative path starts from `folder`. Read once a process and file
    version, since plan, audit and probes all ask. Raises DataError as `load_choice` does."""
    return list(_read(name, folder)[1])


def _read(name: str, folder: Path) -> tuple[ChoiceSet, tuple[Question, ...]]:
    """What the set is, under the name that the study gives it, and its questions."""
    if name in NAMED:
        source, version = name, os.environ.get("BYSTANDER_DATA", "")
    else:
        path = folder / name
        source, version = str(path), str(path.stat().st_mtime_ns) if path.is_file() else ""
    described, questions = _load(source, version)
    return replace(described, where=name), questions


@lru_cache(maxsize=8)
def _load(source: str, version: str) -> tuple[ChoiceSet, tuple[Question, ...]]:
    del version  # part of the cache's key alone: another data folder or a changed file is read anew
    described, questions = read_choice(source)
    return described, tuple(questions)


__all__ = ["CapabilityBehavior", "CapabilitySettings", "load_set"]
