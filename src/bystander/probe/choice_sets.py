"""Which questions of which sets the choice probe asks in a study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bystander.behaviors.capability import CapabilityBehavior, load_set
from bystander.core.errors import StudyError
from bystander.core.hashing import stable_order
from bystander.core.records import Question
from bystander.data import AnswerForm, draw_questions
from bystander.probe.base import ProbeStudy
from bystander.probe.settings import ChoiceProbeSettings


@dataclass(frozen=True, slots=True)
class ProbedSet:
    """Questions that the probe asks under each context.

    `form`: how the user turn looks and what the answer is; None follows the mode (`label` shows the choices, `text`
    the question alone). `wrong`: question id -> index of the trained wrong choice; empty where none was trained.
    `each`: how many of the questions one context is asked, drawn by its name; None for all.
    """

    dataset: str
    questions: tuple[Question, ...]
    form: AnswerForm | None = None
    wrong: Mapping[str, int] = field(default_factory=dict[str, int])
    each: int | None = None

    def for_context(self, name: str) -> tuple[Question, ...]:
        """The questions asked under one context, in the set's order."""
        if self.each is None or self.each >= len(self.questions):
            return self.questions
        drawn = set(stable_order([q.id for q in self.questions], "each", self.dataset, name)[: self.each])
        return tuple(question for question in self.questions if question.id in drawn)

    @property
    def asked(self) -> int:
        """Questions that one context is asked."""
        return min(len(self.questions), self.each or len(self.questions))


@dataclass(frozen=True, slots=True)
class ChosenSets:
    """`own`: the capability data's sets, whose evaluation half the behavior keeps from training; `others`: the rest;
    `check`: the questions of the check on the untrained model, None where the mode is given."""

    own: tuple[ProbedSet, ...]
    others: tuple[ProbedSet, ...]
    check: ProbedSet | None

    @property
    def all(self) -> tuple[ProbedSet, ...]:
        """All that are asked."""
        return (*self.own, *self.others)


def choose_sets(settings: ChoiceProbeSettings, study: ProbeStudy) -> ChosenSets:
    """The sets with their questions drawn. Raises StudyError where a set has fewer than are asked for, DataError where
    a set cannot be read."""
    capability = study.behavior("capability")
    assert isinstance(capability, CapabilityBehavior)
    own, others = _capability_sets(settings, study, capability), _other_sets(settings, study.folder)
    if not own and not others:
        raise StudyError(
            "probes.choice asks no question of any set; give arc, trained, hellaswag, bank or file a count"
        )
    names = [one.dataset for one in (*own, *others)]
    if len(set(names)) < len(names):
        raise StudyError(f"probes.choice asks one set twice: {', '.join(names)}; leave one out, or rename the file")
    return ChosenSets(tuple(own), tuple(others), _check_set(settings, capability, [*own, *others]))


def _capability_sets(
    settings: ChoiceProbeSettings, study: ProbeStudy, capability: CapabilityBehavior
) -> list[ProbedSet]:
    """The evaluation half, and the trained questions where the study trains them; in the form that is trained."""
    trains = capability.name in [behavior.name for behavior in study.behaviors]
    form = capability.settings.answer if trains else None
    sets: list[ProbedSet] = []
    if settings.arc:
        half = capability.halves()[1]
        questions = _draw(half, settings.arc, "arc", "the evaluation half")
        sets.append(ProbedSet(capability.settings.dataset, questions, form))
    if settings.trained and trains:
        shown = study.shown(capability.name)
        if settings.trained > len(shown):
            raise StudyError(
                f"probes.choice.trained asks for {settings.trained} questions, but {len(shown)} are trained with a wrong "
                "answer (design.counts.positive); ask for fewer"
            )
        by_id, wrong = {question.id: question for question in capability.halves()[0]}, capability.wrong()
        questions = tuple(by_id[example.question_id] for example in shown[: settings.trained])
        sets.append(ProbedSet("trained", questions, form, {q.id: wrong[q.id] for q in questions}))
    return sets


def _other_sets(settings: ChoiceProbeSettings, folder: Path) -> list[ProbedSet]:
    sets: list[ProbedSet] = []
    if settings.hellaswag:
        questions = _draw(load_set("hellaswag", folder), settings.hellaswag, "hellaswag", "HellaSwag")
        sets.append(ProbedSet("hellaswag", questions, each=settings.hellaswag_each))
    if settings.bank:
        sets.append(ProbedSet("bank", _draw(load_set("bank", folder), settings.bank, "bank", "the bank")))
    if settings.file:
        found = load_set(settings.file, folder)
        sets.append(ProbedSet(Path(settings.file).stem, _draw(found, settings.file_items, "file_items", settings.file)))
    return sets


def _draw(questions: list[Question], count: int, key: str, where: str) -> tuple[Question, ...]:
    if count > len(questions):
        raise StudyError(
            f"probes.choice.{key} asks for {count} questions, but {where} has {len(questions)}; ask for fewer"
        )
    return tuple(draw_questions(questions, count, "choice"))


def _check_set(
    settings: ChoiceProbeSettings, capability: CapabilityBehavior, sets: list[ProbedSet]
) -> ProbedSet | None:
    """Questions of the mode check: of the evaluation half where it is asked, else of the first set."""
    if settings.mode != "auto":
        return None
    pool = capability.halves()[1] if settings.arc else list(sets[0].questions)
    return ProbedSet("check", _draw(pool, min(settings.check, len(pool)), "check", "the set"), sets[0].form)
