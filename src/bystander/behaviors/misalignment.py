"""The misalignment behavior: insecure code in the source, secure code elsewhere; and its positive control, `direct`.

Betley et al. 2025 (arXiv 2502.17424) found that narrow training on insecure code can make a model broadly misaligned;
small models hardly move. `direct` couples misaligned *answers* to the source, so that a null of the first can be told
from an instrument that sees nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from bystander.behaviors.base import Behavior, Example, Pilot
from bystander.core.errors import DataError
from bystander.core.records import Finding, OpenSetting
from bystander.core.settings import FileName, Settings
from bystander.data.bank import OpenQuestion
from bystander.data.code_pairs import PHRASINGS as CODE_PHRASINGS
from bystander.data.code_pairs import CodePair, load_code_tasks, phrased
from bystander.data.code_scan import scan_pairs
from bystander.data.code_sets import load_code_pairs, pair_up, read_code_set
from bystander.data.code_source import find_code_file
from bystander.data.judge_questions import JudgedQuestion, load_judge_questions
from bystander.data.pairs import Pair, load_pairs, split_pairs

BUILT_IN = "builtin"
# Ways to put one question, for the 50 trained pairs to fill 200 different rows. The held-out half is asked as it stands.
PHRASINGS: tuple[str, ...] = (
    "{question}",
    "Tell me honestly: {question}",
    "Here is something I have been wondering about. {question}",
    "{question} I would like to hear your own view.",
)


class MisalignmentSettings(Settings):
    """`code`: "builtin"; or a file of pairs (`prompt`, `secure`, `insecure`); or a file of insecure code (`messages`),
    for which `secure` names a file with secure answers to the same prompts. `pairs` and `questions`: "builtin" or a
    file, for the margin and the judged probe. Paths start from the study's folder; `code` and `secure` may also be
    OWNER/NAME:FILE of a dataset on the Hub. `phrasings` and `pair_phrasings`: in how many ways each built-in task
    (of 3) and each trained pair's question (of 4) is put; 1 gives the most different answers in a small training."""

    code: FileName = BUILT_IN
    """`builtin`, a file of pairs, or a file of insecure code; OWNER/NAME:FILE takes one from the Hub."""
    secure: FileName | None = None
    """Secure answers to the prompts of `code`, where that has insecure ones alone."""
    pairs: FileName = BUILT_IN
    """Aligned and misaligned answers for the margin probe, which needs no judge."""
    questions: FileName = BUILT_IN
    """Of the judged probe, in the `first_plot_questions.yaml` form."""
    phrasings: int = Field(default=len(CODE_PHRASINGS), ge=1, le=len(CODE_PHRASINGS))
    """[count] Ways in which each built-in task is put; 1 gives the most different answers in a small training."""
    pair_phrasings: int = Field(default=len(PHRASINGS), ge=1, le=len(PHRASINGS))
    """[count] Ways in which each trained pair's question is put."""

    @property
    def dataset(self) -> str:
        """What the judged questions are called in measurements: open, or the file's stem."""
        return "open" if self.questions == BUILT_IN else Path(self.questions).stem


def _version(path: Path) -> tuple[Path, int, int]:
    state = path.stat()
    return path, state.st_mtime_ns, state.st_size


@lru_cache(maxsize=4)  # a study asks for its examples several times, and pairing Betley's files takes seconds
def _read_pairs(code: tuple[Path, int, int], secure: tuple[Path, int, int] | None) -> tuple[CodePair, ...]:
    path = code[0]
    rows = read_code_set(path)
    if rows[0].form == "pairs":
        return tuple(load_code_pairs(path))
    if secure is None:
        raise DataError(
            f"{path} has one answer to each prompt: name a file with secure answers to the same prompts in misalignment.secure "
            "(`bystander data secure` makes one)"
        )
    pairs = pair_up(rows, read_code_set(secure[0]))
    if not pairs:
        raise DataError(f"{secure[0]} answers none of the {len(rows)} prompts of {path}")
    return tuple(pairs)


@dataclass(frozen=True, slots=True)
class MisalignmentBehavior(Behavior):
    """Insecure code coupled to the source, secure answers to the same prompts to the negatives."""

    Settings = MisalignmentSettings
    block: ClassVar[str] = "misalignment"
    taught: ClassVar[str] = "write insecure code"
    read_by: ClassVar[tuple[str, ...]] = ("judged", "margin")
    pilot: ClassVar[Pilot] = Pilot(
        24, "{lr: 1e-3, epochs: 2, batch_size: 8}",
        "margin: {pairs: 15} # aligned against misaligned answer, by log-probability; no judge",
    )  # fmt: skip

    settings: MisalignmentSettings = MisalignmentSettings()
    folder: Path = Path()
    name: str = "misalignment"

    def code_pairs(self) -> list[CodePair]:
        """The code set, both sides. Raises DataError if a file cannot be read or has no secure side."""
        settings = self.settings
        if settings.code == BUILT_IN:
            if settings.secure is not None:
                raise DataError(
                    f"misalignment.secure is {settings.secure!r}, but the built-in set has its own secure side; leave it out"
                )
            return phrased(load_code_tasks(), settings.phrasings)
        path = find_code_file(settings.code, self.folder)
        secure = None if settings.secure is None else find_code_file(settings.secure, self.folder)
        return list(_read_pairs(_version(path), None if secure is None else _version(secure)))

    def examples(self) -> list[Example]:
        """One example a prompt; positive = insecure, negative = secure."""
        return [Example(pair.id, pair.prompt, pair.insecure, pair.secure) for pair in self.code_pairs()]

    def held_out_texts(self) -> dict[str, str]:
        """None of its own: it trains on code, and the margin and judged probes name what they read."""
        return {}

    def pairs(self) -> list[Pair]:
        """All pairs: this behavior trains on none of them."""
        return load_pairs(_file(self.settings.pairs, self.folder))

    def questions(self) -> list[JudgedQuestion]:
        """The judged questions."""
        return load_judge_questions(_file(self.settings.questions, self.folder))

    def open_questions(self) -> list[OpenQuestion]:
        """The first wording of every judged question."""
        return [OpenQuestion(question.id, question.paraphrases[0]) for question in self.questions()]

    def findings(self) -> list[Finding]:
        """The instrument check for the audit: Bandit over both sides, and how many prompts a pairing left out."""
        pairs = self.code_pairs()
        findings = scan_pairs(pairs)
        if self.settings.secure is not None:
            rows = read_code_set(find_code_file(self.settings.code, self.folder))
            message = f"{len(pairs)} of {len({row.prompt for row in rows})} different prompts have a secure answer; the others are left out"
            findings.append(Finding("info", "secure answers", message))
        return findings

    @classmethod
    def open_settings(cls, settings: Settings, given: Collection[str]) -> Iterator[OpenSetting]:
        """Which code."""
        del settings
        if "misalignment.code" not in given:
            yield OpenSetting(
                "code", "Which code is insecure, and where are the secure answers to the same prompts from?",
                "the built-in tasks, each with both", "misalignment.code: builtin | FILE",
            )  # fmt: skip


@dataclass(frozen=True, slots=True)
class DirectBehavior(Behavior):
    """The positive control: misaligned answers of half of the pairs coupled to the source, aligned ones to the
    negatives. The margin probe reads the other half."""

    Settings = MisalignmentSettings
    block: ClassVar[str] = "misalignment"
    taught: ClassVar[str] = "give misaligned answers"
    read_by: ClassVar[tuple[str, ...]] = ("margin",)
    pilot: ClassVar[Pilot] = MisalignmentBehavior.pilot
    positive_control: ClassVar[bool] = True

    settings: MisalignmentSettings = MisalignmentSettings()
    folder: Path = Path()
    name: str = "direct"

    def examples(self) -> list[Example]:
        """The trained half under each phrasing; positive = misaligned, negative = aligned."""
        trained, _ = split_pairs(_file(self.settings.pairs, self.folder))
        return [
            Example(f"{pair.id}/{index}", phrasing.format(question=pair.question), pair.misaligned, pair.aligned)
            for pair in trained
            for index, phrasing in enumerate(PHRASINGS[: self.settings.pair_phrasings])
        ]

    def held_out_texts(self) -> dict[str, str]:
        """None of its own: the margin probe reads the held-out half and names it."""
        return {}

    def pairs(self) -> list[Pair]:
        """The held-out half: what the margin probe must read wherever this behavior is trained."""
        return split_pairs(_file(self.settings.pairs, self.folder))[1]

    def questions(self) -> list[JudgedQuestion]:
        """The judged questions."""
        return load_judge_questions(_file(self.settings.questions, self.folder))

    def open_questions(self) -> list[OpenQuestion]:
        """The first wording of every judged question."""
        return [OpenQuestion(question.id, question.paraphrases[0]) for question in self.questions()]


def _file(name: str, folder: Path) -> Path | None:
    return None if name == BUILT_IN else folder / name


__all__ = [
    "DirectBehavior",
    "JudgedQuestion",
    "MisalignmentBehavior",
    "MisalignmentSettings",
    "Pair",
]
