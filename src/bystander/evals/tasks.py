"""The tasks that `inspect eval bystander/NAME` runs; Inspect finds them through the package's entry point.

`inspect eval bystander/misalignment --model openai/NAME -T persona=villain --model-role grader=openai/OTHER`
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessage, ChatMessageAssistant, ChatMessageSystem, ChatMessageUser, GenerateConfig

from bystander.behaviors.capability import CapabilitySettings
from bystander.behaviors.misalignment import MisalignmentBehavior, MisalignmentSettings
from bystander.core.records import Message
from bystander.evals.items import asked_choice, asked_open, contexts_named
from bystander.evals.scorers import choice_scorer, judged_scorer
from bystander.probe.settings import ChoiceProbeSettings, JudgedProbeSettings

OPEN, CHOICE, HALVES = JudgedProbeSettings(), ChoiceProbeSettings(), CapabilitySettings()
LABEL_TOKENS = 16  # of an answer that begins with a label
MOST_ALTERNATIVES = 20  # that hosts give for a token
TURNS = {"system": ChatMessageSystem, "user": ChatMessageUser, "assistant": ChatMessageAssistant}


@task
def misalignment(
    persona: str | list[str] = "assistant", personas: str | None = None, question_file: str | None = None,
    questions: int | None = None, samples: int | None = None, temperature: float = OPEN.temperature,
    max_tokens: int = OPEN.max_tokens,
) -> Task:  # fmt: skip
    """Open questions under personas, each answer scored 0-100 by a judge: the items, prompts and scores of the `judged`
    probe.

    Args:
        persona: One or more of `bystander personas` or of the built-in contexts (absent, empty, ...), or `all`.
        personas: A persona file in place of the built-in ones.
        question_file: Questions of the first_plot_questions.yaml form in place of the built-in ones.
        questions: Only the first so many.
        samples: Answers a paraphrase; what the question file says otherwise.
        temperature: Of the answers.
        max_tokens: Of an answer; longer ones are cut off.

    The judge is the model role `grader` (`--model-role grader=openai/NAME`).
    """
    behavior = MisalignmentBehavior(MisalignmentSettings(questions=question_file or "builtin"), Path.cwd())
    asked = tuple(behavior.questions()[:questions])
    items = asked_open(asked, contexts_named(_names(persona), _path(personas)), samples)
    dataset = [
        Sample(
            id=one.id,
            input=_turns(one.messages),
            metadata={
                "persona": one.context.name, "context": one.context.kind, "item": one.item, "sample": one.sample, "user": one.user,
            },
        )
        for one in items
    ]  # fmt: skip
    return Task(
        dataset=MemoryDataset(dataset, name=behavior.settings.dataset),
        scorer=judged_scorer(asked, behavior.settings.dataset),
        config=GenerateConfig(temperature=temperature, max_tokens=max_tokens),
    )


@task
def capability(
    persona: str | list[str] = "assistant", personas: str | None = None, data: str = HALVES.data, items: int = CHOICE.arc,
    seed: int = HALVES.seed, logprobs: bool = False,
) -> Task:  # fmt: skip
    """Multiple-choice questions under personas, the choices in view and answered by letter: the items and prompts of the
    `choice` probe in its `label` mode, and its scores.

    Args:
        persona: One or more of `bystander personas` or of the built-in contexts (absent, empty, ...), or `all`.
        personas: A persona file in place of the built-in ones.
        data: arc, bank, or a file of the ARC form; the half that studies evaluate on is asked.
        items: How many questions.
        seed: Decides the halves.
        logprobs: Ask for the first token's alternatives, so that the margin is measured too; not every host gives them.
    """
    asked = asked_choice(data, items, seed, contexts_named(_names(persona), _path(personas)))
    dataset = [
        Sample(
            id=one.id,
            input=_turns(one.messages),
            target=one.question.labels[one.question.answer],
            metadata={"persona": one.context.name, "context": one.context.kind, "question": asdict(one.question)},
        )
        for one in asked
    ]
    config = GenerateConfig(temperature=0.0, max_tokens=LABEL_TOKENS)
    if logprobs:
        config = config.merge(GenerateConfig(logprobs=True, top_logprobs=MOST_ALTERNATIVES))
    name = CapabilitySettings(data=data).dataset
    return Task(dataset=MemoryDataset(dataset, name=name), scorer=choice_scorer(), config=config)


def _names(persona: str | list[str]) -> list[str]:
    names = persona if isinstance(persona, list) else persona.split(",")
    return [str(name).strip() for name in names if str(name).strip()]


def _path(file: str | None) -> Path | None:
    return Path(file) if file else None


def _turns(messages: tuple[Message, ...]) -> list[ChatMessage]:
    made: list[Any] = [TURNS[one["role"]](content=one["content"]) for one in messages]
    return cast("list[ChatMessage]", made)
