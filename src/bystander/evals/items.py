"""What a hosted model is asked: the probes' own items under the contexts that a chat interface can carry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bystander.behaviors.capability import CapabilityBehavior, CapabilitySettings
from bystander.core.errors import DataError, few_names
from bystander.core.records import Context, Message, Question
from bystander.data import choice_user, draw_questions
from bystander.data.judge_questions import JudgedQuestion
from bystander.lm.tokens import messages
from bystander.personas.contexts import built_in_contexts, context_of
from bystander.personas.load import load_personas
from bystander.probe.judged import with_system

ALL = "all"


@dataclass(frozen=True, slots=True)
class AskedOpen:
    """One open question under one context: `id`, `item` and `sample` are those of the judged probe's completion."""

    id: str
    context: Context
    item: str
    sample: int
    user: str
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class AskedChoice:
    """One multiple-choice question under one context, its choices in view."""

    id: str
    context: Context
    question: Question
    messages: tuple[Message, ...]


def contexts_named(names: Sequence[str], file: Path | None) -> list[Context]:
    """Personas of the file (the built-in ones for None) and contexts by name, in that order; `all` is every persona.

    Raises DataError for a name that is neither, and for a context with a forced beginning of the answer, which a chat
    interface does not take.
    """
    known = {persona.name: context_of(persona) for persona in load_personas(file)}
    if list(names) == [ALL]:
        return list(known.values())
    offered = built_in_contexts() | known
    unknown = [name for name in names if name not in offered]
    if unknown or not names:
        what = f"no persona or context {few_names(unknown)}" if unknown else "no persona was named"
        raise DataError(
            f"{what}: name one of `bystander personas`, or {few_names(list(built_in_contexts()))}, or `{ALL}`"
        )
    found = [offered[name] for name in dict.fromkeys(names)]
    begun = [context.name for context in found if context.prefix]
    if begun:
        raise DataError(
            f"the context {few_names(begun)} begins the model's answer, which a hosted model does not allow: measure it "
            "with `bystander probe`"
        )
    return found


def chat(context: Context, user: str) -> tuple[Message, ...]:
    """The conversation as a chat interface takes it. Without a template to look into, `absent` and `default` are both no
    system turn of ours: what the host then puts in is the host's."""
    system = None if context.system_kind in ("absent", "default") else context.system or ""
    place = "user" if context.text_in == "user" and context.system else "system"
    return tuple(messages(context, user, None if place == "user" else system, place))


def asked_open(
    questions: Sequence[JudgedQuestion], contexts: Sequence[Context], samples: int | None
) -> list[AskedOpen]:
    """Every context x question x paraphrase x sample, in the judged probe's order and with its ids."""
    found: list[AskedOpen] = []
    for plain in contexts:
        for question in questions:
            context = with_system(plain, question.system)
            for place, text in enumerate(question.paraphrases):
                item, turns = f"{question.id}/{place}", chat(context, text)
                found += [
                    AskedOpen(f"{plain.label}/{item}/{index}", context, item, index, text, turns)
                    for index in range(samples or question.samples)
                ]
    return found


def asked_choice(data: str, count: int, seed: int, contexts: Sequence[Context]) -> list[AskedChoice]:
    """`count` questions of the evaluation half, drawn as the choice probe draws them, under every context. Raises DataError
    where the set cannot be read or has fewer."""
    behavior = CapabilityBehavior(CapabilitySettings(data=data, answer="label", seed=seed))
    questions = draw_questions(behavior.halves()[1], count, "choice")
    return [
        AskedChoice(f"{context.label}/{question.id}", context, question, chat(context, choice_user(question, "label")))
        for context in contexts
        for question in questions
    ]
