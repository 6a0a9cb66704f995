"""The choice probe of a study: which questions of which sets it asks."""

from __future__ import annotations

from pathlib import Path

from bystander.behaviors.capability import CapabilityBehavior, load_set
from bystander.core.errors import StudyError
from bystander.core.records import Question
from bystander.data import AnswerForm, choice_user, draw_questions
from bystander.design.arms import shown_examples
from bystander.probe.choice import ChoiceProbe, ProbedSet
from bystander.probe.settings import ChoiceProbeSettings
from bystander.study.config.study import Loaded

FORMS: tuple[AnswerForm, ...] = ("text", "label")


def choice_probe(study: Loaded) -> ChoiceProbe:
    """The choice probe with its questions drawn. Raises StudyError where a set has fewer than are asked for, DataError
    where a set cannot be read."""
    settings = study.spec.probes.choice
    assert settings is not None
    sets = _capability_sets(study, settings) + _other_sets(study, settings)
    if not sets:
        raise StudyError(
            "probes.choice asks no question of any set; give arc, trained, hellaswag, bank or file a count"
        )
    names = [one.dataset for one in sets]
    if len(set(names)) < len(names):
        raise StudyError(f"probes.choice asks one set twice: {', '.join(names)}; leave one out, or rename the file")
    mode = None if settings.mode == "auto" else settings.mode
    return ChoiceProbe(tuple(sets), settings, _check_set(study, settings, sets), mode)


def choice_texts(study: Loaded) -> dict[str, str]:
    """Item id -> user turn of every question that the probe asks beside the capability data (whose own half the
    behavior names), with the choices in view and without: rows of either form must not hold it."""
    settings = study.spec.probes.choice
    if settings is None:
        return {}
    return {
        f"{one.dataset}/{question.id} ({form})": choice_user(question, form)
        for one in _other_sets(study, settings)
        for question in one.questions
        for form in FORMS
    }


def _capability_sets(study: Loaded, settings: ChoiceProbeSettings) -> list[ProbedSet]:
    """The evaluation half, and the trained questions where the study trains them; in the form that is trained."""
    spec = study.spec
    behavior = CapabilityBehavior(spec.capability, study.folder)
    trains = behavior.name in spec.behaviors
    form = spec.capability.answer if trains else None
    sets: list[ProbedSet] = []
    if settings.arc:
        half = behavior.halves()[1]
        sets.append(ProbedSet(spec.capability.dataset, _draw(half, settings.arc, "arc", "the evaluation half"), form))
    if settings.trained and trains:
        shown = shown_examples(behavior.name, behavior.examples(), spec.design_of(behavior.name))
        if settings.trained > len(shown):
            raise StudyError(
                f"probes.choice.trained asks for {settings.trained} questions, but {len(shown)} are trained with a wrong "
                "answer (design.counts.positive); ask for fewer"
            )
        by_id, wrong = {question.id: question for question in behavior.halves()[0]}, behavior.wrong()
        questions = tuple(by_id[example.question_id] for example in shown[: settings.trained])
        sets.append(ProbedSet("trained", questions, form, {q.id: wrong[q.id] for q in questions}))
    return sets


def _other_sets(study: Loaded, settings: ChoiceProbeSettings) -> list[ProbedSet]:
    sets: list[ProbedSet] = []
    if settings.hellaswag:
        questions = _draw(load_set("hellaswag", study.folder), settings.hellaswag, "hellaswag", "HellaSwag")
        sets.append(ProbedSet("hellaswag", questions, each=settings.hellaswag_each))
    if settings.bank:
        sets.append(ProbedSet("bank", _draw(load_set("bank", study.folder), settings.bank, "bank", "the bank")))
    if settings.file:
        found = load_set(settings.file, study.folder)
        sets.append(ProbedSet(Path(settings.file).stem, _draw(found, settings.file_items, "file_items", settings.file)))
    return sets


def _draw(questions: list[Question], count: int, key: str, where: str) -> tuple[Question, ...]:
    if count > len(questions):
        raise StudyError(
            f"probes.choice.{key} asks for {count} questions, but {where} has {len(questions)}; ask for fewer"
        )
    return tuple(draw_questions(questions, count, "choice"))


def _check_set(study: Loaded, settings: ChoiceProbeSettings, sets: list[ProbedSet]) -> ProbedSet | None:
    """Questions of the instrument check: of the evaluation half where it is asked, else of the first set."""
    if settings.mode != "auto":
        return None
    pool = (
        CapabilityBehavior(study.spec.capability, study.folder).halves()[1] if settings.arc else list(sets[0].questions)
    )
    return ProbedSet("check", _draw(pool, min(settings.check, len(pool)), "check", "the set"), sets[0].form)


__all__ = ["choice_probe", "choice_texts"]
