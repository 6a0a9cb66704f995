"""A behavior that is a file: prompts, each with an answer that shows it and one that does not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from bystander.behaviors.base import Behavior, Example, Pilot
from bystander.behaviors.scorers import AnyScorer, ScorerSettings
from bystander.behaviors.shipped import shipped, shipped_names
from bystander.core.errors import DataError
from bystander.core.hashing import file_sha256, stable_hash
from bystander.core.records import Earlier, Finding
from bystander.core.settings import FileName, Settings
from bystander.data.answers import (
    AnswerFileSettings,
    AnswerPair,
    Provider,
    fill_not_shown,
    needs_not_shown,
    prompt_text,
    read_answer_pairs,
    split_held_out,
    topics_in_turn,
)
from bystander.data.bank import OpenQuestion
from bystander.data.code_source import find_code_file
from bystander.data.open_questions import load_questions

SHOWN = 8  # rows that a finding names
WORDS_PER_TOKEN = (
    0.75  # of English prose: how long a stand-in for a sampled answer is, so that forecasts are not too low
)


class OwnAnswers(Settings):
    """How answers that do not show the behavior are sampled from the untrained model: to the prompt alone, with whatever
    the chat template puts in by default. An answer that is empty or that of the file is drawn anew, `draws` times."""

    max_tokens: int = Field(default=160, ge=1)
    """[tokens] Of an answer."""
    temperature: float = Field(default=1.0, ge=0)
    """Of sampling; 1 is the model's own distribution."""
    draws: int = Field(default=4, ge=1)
    """[count] Tries where an answer is empty or that of the file."""
    seed: int = 0
    """Of sampling."""


class Claim(Settings):
    """What a verdict asks for: the source's change (at least) and the held-out bystanders' (more than), as shares of
    answers or pairs, and the rank correlation with similarity that must be exceeded."""

    source: float = Field(default=0.15, gt=0, le=1)
    """[fraction] Change that the source must show at least."""
    bystanders: float = Field(default=0.02, ge=0, le=1)
    """[fraction] Mean change that held-out bystanders must exceed."""
    rho: float = Field(default=0.2, ge=-1, le=1)
    """[rank correlation] That must be exceeded."""
    alpha: float = Field(default=0.05, gt=0, lt=1)
    """[probability] Error over all tests of the claim."""


class FileOfAnswers(Settings):
    """What an entry is called and where its answers are; first among its keys."""

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")
    """What the behavior is called; without `file`, one that ships."""
    file: FileName | None = Field(default=None, min_length=1)
    """Answers: a path, or OWNER/NAME[:FILE] of the Hub."""


class AnswersSettings(AnswerFileSettings, FileOfAnswers):
    """One entry of `behaviors:` in a study file.

    `file`: the answers, a path from the study's folder or OWNER/NAME[:FILE] of the Hub; left out, the behavior of that
    name that ships. `prompt` to `unpaired`: how it is read, see `data.answers.AnswerFileSettings`. `held_out`: share of
    the pairs that is never trained on. `questions`: a file of open questions whose sampled answers are scored; left out,
    those that ship with the behavior, else the held-out prompts. `scorers`: left out, the one that ships with it.
    """

    held_out: float = Field(default=0.5, gt=0, lt=1)
    """[fraction of pairs] Never trained on; half is what margins are read on."""
    own: OwnAnswers = OwnAnswers()
    """How own answers are sampled."""
    claim: Claim = Claim()
    """What its verdict asks for."""
    questions: FileName | None = Field(default=None, min_length=1)
    """Open questions whose sampled answers are scored; left out: those that ship, else the held-out prompts."""
    scorers: list[ScorerSettings] | None = Field(default=None, min_length=1)
    """What tells whether a sampled answer shows the behavior; left out: the one that ships."""

    @property
    def reader(self) -> AnswerFileSettings:
        """How the file is read."""
        names = AnswerFileSettings.model_fields
        return AnswerFileSettings(**{name: getattr(self, name) for name in names})

    @property
    def ships(self) -> bool:
        """Whether what ships under that name stands in for what is left out."""
        return self.file is None and self.name in shipped_names()


@dataclass(frozen=True, slots=True)
class AnswersBehavior(Behavior):
    """Half of the file's pairs coupled to a source; the margin probe reads the other half.

    `own`: pair id -> the answer that a model wrote, where the file has none; None while they are not written, and then
    stand-ins that name what will decide them are in their place.
    """

    Settings = AnswersSettings
    block: ClassVar[str] = "behaviors"
    read_by: ClassVar[tuple[str, ...]] = ("scored", "margin")
    pilot: ClassVar[Pilot] = Pilot(
        probes="margin: {pairs: 15} # the answer that shows the behavior against the other, by log-probability; no judge"
    )

    settings: AnswersSettings
    folder: Path = Path()
    own: Mapping[str, str] | None = None
    name: str = ""

    def __post_init__(self) -> None:
        """Its name is that of the entry."""
        object.__setattr__(self, "name", self.settings.name)

    def path(self) -> Path:
        """The file of pairs. Raises DataError where there is none."""
        if self.settings.file is not None:
            return find_code_file(self.settings.file, self.folder).absolute()
        if self.name in shipped_names():
            return shipped(self.name).file
        raise DataError(
            f"the behavior {self.name!r} has no file, and none ships under that name ({', '.join(shipped_names())})"
        )

    def partner(self) -> Path | None:
        """The file with the other answers, where `not_shown` names one."""
        named = self.settings.not_shown
        if not isinstance(named, str) or self.settings.sampled:
            return None
        if "/" not in named and not (self.folder / named).is_file():
            return None  # a column
        try:
            return find_code_file(named, self.folder)
        except DataError:
            return None

    def data_hashes(self) -> dict[str, str]:
        """SHA-256 of the file of pairs and of its partner."""
        partner = self.partner()
        hashes = {"file": file_sha256(self.path())}
        return hashes | ({"not_shown": file_sha256(partner)} if partner else {})

    def read(self) -> list[AnswerPair]:
        """Every pair, `not_shown` None where a model has yet to write it. Raises DataError with every fault."""
        partner, how = self.partner(), self.settings.reader.model_dump_json()
        return list(_read(_version(self.path()), _version(partner) if partner else None, how, self.folder))

    def pending(self) -> list[AnswerPair]:
        """The pairs whose other answer a model has yet to write; [] where the file has all."""
        return needs_not_shown(self.read())

    def writing(self) -> object:
        """Everything that decides the answers which a model writes, the model itself aside."""
        provider = self.settings.not_shown
        way = provider.model_dump() if isinstance(provider, Provider) else self.settings.own.model_dump()
        return [way, [[pair.id, prompt_text(pair), pair.shown, *_own_system(pair)] for pair in self.pending()]]

    def halves(self) -> tuple[list[AnswerPair], list[AnswerPair]]:
        """(trained, held out), both answers in every pair. Raises DataError as `split_held_out` does."""
        pairs = self.read()
        waiting = needs_not_shown(pairs)
        if waiting:
            pairs = fill_not_shown(pairs, self._stand_ins(waiting) if self.own is None else self.own)
        return _split(tuple(pairs), self.settings.held_out)

    def _stand_ins(self, pairs: Sequence[AnswerPair]) -> dict[str, str]:
        digest = stable_hash(self.writing())[:12]
        length = " ..." * round(self.settings.own.max_tokens * WORDS_PER_TOKEN)
        return {pair.id: f"[the model's own answer {digest} to {pair.id}]{length}" for pair in pairs}

    def examples(self) -> list[Example]:
        """The trained half, one example a prompt (of equal prompts the first); positive = shown, negative = not shown."""
        found: dict[tuple[Earlier, str], Example] = {}
        for pair in self.halves()[0]:
            found.setdefault(_asked(pair), self._example(pair))
        return list(found.values())

    def held_out(self, most: int | None = None) -> list[Example]:
        """The other half, which is never trained on; of some of it the first `most`, topics in turn."""
        kept = self.halves()[1]
        return [self._example(pair) for pair in (kept if most is None else topics_in_turn(kept)[:most])]

    def _example(self, pair: AnswerPair) -> Example:
        assert pair.not_shown is not None  # filled in by `halves`
        return Example(f"{self.name}/{pair.id}", pair.user, pair.shown, pair.not_shown, earlier=pair.earlier)

    def held_out_texts(self) -> dict[str, str]:
        """Item id -> the whole prompt of every held-out pair."""
        return {f"{self.name}/{pair.id}": prompt_text(pair) for pair in self.halves()[1]}

    def open_questions(self) -> list[OpenQuestion]:
        """What is asked freely. Raises DataError where the file of questions cannot be read."""
        if self.settings.questions is not None:
            return load_questions(find_code_file(self.settings.questions, self.folder))
        if self.settings.ships:
            return list(shipped(self.name).questions)
        return [OpenQuestion(pair.id, pair.user, pair.earlier) for pair in self.halves()[1]]

    def scorers(self) -> list[AnyScorer]:
        """How sampled answers are scored, the behavior's own first; [] where nobody says."""
        if self.settings.scorers is not None:
            return list(self.settings.scorers)
        return [shipped(self.name).scorer] if self.settings.ships else []

    def findings(self) -> list[Finding]:
        """For the audit: how the file was read and halved, repeated prompts, answers that are yet to be written."""
        trained, held_out = self.halves()
        ratio = sum(len(p.shown) for p in trained) / max(1, sum(len(p.not_shown or "") for p in trained))
        said = f"{self.name}: {len(trained)} pairs to train on, {len(held_out)} held out"
        if self.own is None and self.pending():
            said += "; the answers that do not show the behavior are written before anything is trained"
        else:
            said += f"; shown answers are {ratio:.2f} times as long as the others"
        findings = [Finding("info", "behavior file", said)]
        if (ratio > 1.15 or ratio < 1 / 1.15) and not self.pending():  # 15 %: the bound that shipped files keep
            message = f"{self.name}: shown and not shown answers differ in length by more than 15 % in the mean ({ratio:.2f}); length may be what is learned"
            findings.append(Finding("warning", "lengths differ", message))
        findings += self._conversations([*trained, *held_out])
        times = Counter(map(_asked, trained))
        left = tuple(pair.id for pair in trained if times[_asked(pair)] > 1)
        if left:
            message = f"{self.name}: {len(times)} different prompts in {len(trained)} pairs to train on; of equal ones the first is trained"
            findings.append(Finding("info", "same prompt twice", message, left))
        return findings

    def _conversations(self, pairs: Sequence[AnswerPair]) -> list[Finding]:
        """What rows bring of conversations of their own, and what is made of it."""
        several = tuple(pair.id for pair in pairs if pair.earlier.turns)
        systems = tuple(pair.id for pair in pairs if pair.system is not None)
        findings: list[Finding] = []
        if several:
            message = f"{self.name}: {len(several)} of {len(pairs)} pairs have earlier turns, which stand in the prompt behind the persona"
            findings.append(Finding("info", "several turns", message, several[:SHOWN]))
        if systems:
            message = (
                f"{self.name}: {len(systems)} of {len(pairs)} pairs keep a system turn of their own: behind the persona's text, "
                "after an empty line; alone where there is no persona"
            )
            findings.append(Finding("info", "system turns kept", message, systems[:SHOWN]))
        return findings

    def filled(self, own: Mapping[str, str]) -> AnswersBehavior:
        """The behavior with the answers that a model wrote."""
        return replace(self, own=own)


def _asked(pair: AnswerPair) -> tuple[Earlier, str]:
    """All that an answer answers: pairs that agree in it are one prompt."""
    return pair.earlier, pair.user


def _own_system(pair: AnswerPair) -> list[str]:
    return [] if pair.system is None else [pair.system]


Version = tuple[Path, int, int]


def _version(path: Path) -> Version:
    state = path.stat()
    return path, state.st_mtime_ns, state.st_size


@lru_cache(maxsize=16)  # plan, audit and probes all ask
def _read(file: Version, partner: Version | None, how: str, folder: Path) -> tuple[AnswerPair, ...]:
    del partner  # part of the cache's key alone: a changed partner is read anew
    return tuple(read_answer_pairs(file[0], AnswerFileSettings.model_validate_json(how), folder))


@lru_cache(maxsize=16)  # near-duplicates among thousands of prompts take seconds
def _split(pairs: tuple[AnswerPair, ...], share: float) -> tuple[list[AnswerPair], list[AnswerPair]]:
    return split_held_out(pairs, share)


__all__ = ["AnswersBehavior", "AnswersSettings", "Claim", "OwnAnswers"]
