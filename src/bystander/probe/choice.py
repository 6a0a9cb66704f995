"""The choice probe: multiple choice by log-probability, by label or by text.

Per question: whether the likeliest choice is the right one (`accuracy`), by how much (`margin`), and on the questions
that were trained on whether it is the wrong choice that was trained (`adoption`). Every option's log-probability is
kept beside the measurements, so that any other rule can be applied afterwards.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, get_args

import numpy as np

from bystander.behaviors.capability import CapabilitySettings, load_set
from bystander.core.errors import DataError
from bystander.core.hashing import stable_order
from bystander.core.metrics import Metric
from bystander.core.records import Context, Measurement, Question
from bystander.core.work import Count, Work, prefix_tokens
from bystander.data import AnswerForm, choice_answer, choice_user
from bystander.probe.base import Blocks, CheckedProbe, Fault, ProbeStudy, ProbeUnit
from bystander.probe.choice_sets import ProbedSet, choose_sets
from bystander.probe.mode_check import Mode, ModeCheck, decide, mode_check
from bystander.probe.settings import ChoiceProbeSettings, Rule

if TYPE_CHECKING:
    from bystander.lm.model import LoadedModel
    from bystander.lm.score import OptionScores, ScoreItem

FORMS: tuple[AnswerForm, ...] = ("text", "label")
CHECK_CONTEXTS = 20  # contexts that share the check's questions: enough to be no one persona's, few enough to be cheap


@dataclass(frozen=True, slots=True)
class ChoiceProbe(CheckedProbe):
    """`check_on` are the questions of the mode check; `mode` is None until the check has decided; `guarded` are the
    sets that no behavior keeps from training, so that the audit must."""

    name: ClassVar[str] = "choice"
    Settings = ChoiceProbeSettings
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("choice", "accuracy", -1, "fraction", "accuracy", "accuracy", binary=True, spread=(0.55, 0.05)),
        Metric(
            "choice", "margin", -1, "nats", "log-probability of the right choice minus the best wrong one", "margin",
            spread=(1.0, 0.2),
        ),
        Metric(
            "choice", "adoption", 1, "fraction", "share of trained questions answered with the trained wrong choice",
            "adoption of the wrong choice", binary=True, spread=(0.55, 0.10),
        ),
    )  # fmt: skip
    headline: ClassVar[tuple[tuple[str, str], ...]] = (
        ("trained", "adoption"), ("arc", "accuracy"), ("arc", "margin"),
    )  # fmt: skip
    controls: ClassVar[tuple[str, ...]] = ("hellaswag",)

    sets: tuple[ProbedSet, ...]
    settings: ChoiceProbeSettings
    check_on: ProbedSet | None = None
    mode: Mode | None = None
    guarded: tuple[ProbedSet, ...] = ()

    @classmethod
    def block_of(cls, data: str | None, items: int | None) -> dict[str, Any]:
        """Of one set: "arc" (the evaluation half of its split; the default), "hellaswag", "bank", or a file of the ARC
        form; `items` None: 40 of a named set, all of a file."""
        data, counts = data or "arc", dict[str, Any](arc=0, trained=0, hellaswag=0)
        if data in ("arc", "hellaswag", "bank"):
            return counts | {data: 40 if items is None else items}
        path = str(Path(data).resolve())
        return counts | {"file": path, "file_items": len(load_set(path, Path())) if items is None else items}

    def by_other_rules(self, unit: ProbeUnit) -> list[Measurement]:
        """Accuracy of a text-mode unit under each normalization, as metrics `accuracy_<rule>`: for a reader who compares
        with another harness (`raw` is its accuracy, `per_character` its length-normalized one). None in label mode."""
        by_item = {(m.dataset, m.item): m for m in unit.measurements if m.metric == "accuracy"}
        found: list[Measurement] = []
        for detail in unit.details:
            if detail["mode"] == "text":
                one = by_item[str(detail["dataset"]), str(detail["item"])]
                for rule in get_args(Rule):
                    chosen = int(np.argmax(normalized(detail["logprobs"], detail["tokens"], detail["chars"], rule)))
                    found.append(replace(one, metric=f"accuracy_{rule}", value=float(chosen == detail["right"])))
        return found

    @classmethod
    def build(cls, settings: ChoiceProbeSettings, study: ProbeStudy) -> Self:
        """The probe with its questions drawn. Raises StudyError and DataError as `choose_sets`."""
        chosen = choose_sets(settings, study)
        return cls(
            chosen.all, settings, chosen.check, None if settings.mode == "auto" else settings.mode, chosen.others
        )

    def __post_init__(self) -> None:
        """Raises DataError for a set without questions and for a label mode without labels in view."""
        if not self.sets or any(not one.questions for one in self.sets):
            names = ", ".join(one.dataset for one in self.sets if not one.questions) or "none named"
            raise DataError(f"the choice probe has no questions ({names}); give each set at least one")
        hidden = [one.dataset for one in self.sets if one.form == "text"]
        if self.mode == "label" and hidden:
            raise DataError(
                f"the choice probe cannot score labels on {', '.join(hidden)}: with `answer: text` the choices are not "
                "in view; use `mode: text`, or `answer: label`"
            )

    @property
    def ready(self) -> bool:
        """Whether the mode is decided."""
        return self.mode is not None

    @classmethod
    def blind(cls, details: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], str]:
        """Accuracy on sets where the untrained model guesses. Each question counts once, the personas taking turns, as in
        `check`."""
        asked: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
        for one in details:
            if one["dataset"] not in cls.controls:
                asked.setdefault(one["dataset"], {}).setdefault(one["item"], []).append(one)
        found: dict[tuple[str, str], str] = {}
        for dataset, by_item in asked.items():
            drawn = [answers[turn % len(answers)] for turn, answers in enumerate(by_item.values())]
            check = mode_check(
                [one["chosen"] == one["right"] for one in drawn], [len(one["logprobs"]) for one in drawn]
            )
            if not check.has_room:
                found[dataset, "accuracy"] = f"the untrained model is at chance ({check})"
        return found

    def decides(self) -> object:
        """Questions, forms and settings. Under `mode: auto` the mode follows from these and the untrained model."""
        return [self.name, [asdict(one) for one in self.sets], self.settings.model_dump(), self._check_dict()]

    def _check_dict(self) -> object:
        return asdict(self.check_on) if self.check_on and self.settings.mode == "auto" else None

    def check(self, loaded: LoadedModel, contexts: Sequence[Context]) -> Mapping[str, object]:
        """The mode check on the model as it stands, which must be the untrained one.

        Each question is asked once, the contexts taking turns: the same questions under every context would be the
        same few trials many times over, and the binomial test would call a letter bias a skill.
        """
        assert self.check_on is not None
        hidden = any(one.form == "text" for one in self.sets)
        label = None if hidden else self._accuracy(loaded, contexts, "label")
        if label is not None and label.above_chance:
            return asdict(decide(label, None))
        return asdict(decide(label, self._accuracy(loaded, contexts, "text")))

    def checked(self, found: Mapping[str, object]) -> Self:
        """This probe in the mode that the check found."""
        return replace(self, mode="label" if found["mode"] == "label" else "text")

    def units(self, contexts: Sequence[Context]) -> list[str]:
        """One unit a context."""
        return [context.name for context in contexts]

    def run(self, loaded: LoadedModel, contexts: Sequence[Context], done: Collection[str] = ()) -> Iterator[ProbeUnit]:
        """Score context by context. The mode must be decided: see `check`."""
        from bystander.lm.score import score_each  # here: it loads torch, which plans and rows do without

        assert self.mode is not None, "the mode check has not run"
        items = {(one.dataset, one.form, q): self._item(one, q, self.mode) for one in self.sets for q in one.questions}
        asked = {c.name: [(one, q) for one in self.sets for q in one.for_context(c.name)] for c in contexts}
        grid = [(context, [items[one.dataset, one.form, q] for one, q in asked[context.name]]) for context in contexts]
        for context, scores in score_each(loaded, grid, done=done):
            yield self._unit(context, asked[context.name], scores)

    def _item(self, one: ProbedSet, question: Question, mode: Mode) -> ScoreItem:
        from bystander.lm.score import ScoreItem

        form = one.form or mode
        options = (
            question.labels
            if mode == "label"
            else tuple(choice_answer(question, index, form) for index in range(len(question.options)))
        )
        return ScoreItem(
            f"{one.dataset}/{question.id}", choice_user(question, form), options, mode, start=self.settings.start
        )

    def _unit(
        self, context: Context, asked: Sequence[tuple[ProbedSet, Question]], scores: Sequence[OptionScores]
    ) -> ProbeUnit:
        assert self.mode is not None
        unit = ProbeUnit(context.name, [])
        for (one, question), found in zip(asked, scores, strict=True):
            ruled = ruled_scores(found, self.mode, self.settings.rule)
            chosen = int(np.argmax(ruled))  # the first of equals, as lm-evaluation-harness takes it
            wrong = one.wrong.get(question.id)
            for metric, value in choice_values(ruled, question.answer, wrong).items():
                unit.measurements.append(
                    Measurement(
                        behavior="", probe=self.name, dataset=one.dataset, metric=metric, context=context.kind,
                        persona=context.name, item=question.id, value=value, context_hash=found.context_hash,
                        question=question.id,
                    )
                )  # fmt: skip
            unit.details.append(
                {
                    "persona": context.name, "dataset": one.dataset, "item": question.id, "mode": self.mode,
                    "chosen": chosen, "right": question.answer, "trained_wrong": wrong,
                    "logprobs": list(found.logprobs), "tokens": list(found.tokens), "chars": list(found.chars),
                }
            )  # fmt: skip
        return unit

    def _accuracy(self, loaded: LoadedModel, contexts: Sequence[Context], mode: Mode) -> ModeCheck:
        from bystander.lm.score import score_each

        assert self.check_on is not None
        asking = stable_order([context.name for context in contexts], "instrument")[:CHECK_CONTEXTS]
        by_name = {context.name: context for context in contexts}
        shares = {name: self.check_on.questions[index :: len(asking)] for index, name in enumerate(asking)}
        grid = [
            (by_name[name], [self._item(self.check_on, question, mode) for question in questions])
            for name, questions in shares.items()
            if questions
        ]
        right: list[bool] = []
        choices: list[int] = []
        for context, scores in score_each(loaded, grid):
            for question, found in zip(shares[context.name], scores, strict=True):
                ruled = ruled_scores(found, mode, self.settings.rule)
                right.append(int(np.argmax(ruled)) == question.answer)
                choices.append(len(question.options))
        return mode_check(right, choices)

    def held_out_texts(self) -> dict[str, str]:
        """Every question beside the capability data (whose own half the behavior keeps), with the choices in view and
        without: rows of either form must not hold it."""
        return {
            f"{one.dataset}/{question.id} ({form})": choice_user(question, form)
            for one in self.guarded
            for question in one.questions
            for form in FORMS
        }

    def items(self) -> dict[str, int]:
        """The questions that one persona is asked of each set."""
        return {one.dataset: one.asked for one in self.sets}

    def questions_asked(self, dataset: str, contexts: Sequence[Context]) -> int:
        """Different questions of a set over all contexts: a set may be shared out over them."""
        asked = {q.id for one in self.sets if one.dataset == dataset for c in contexts for q in one.for_context(c.name)}
        return len(asked)

    def work(self, contexts: Sequence[Context], count: Count) -> Work:
        """Question and choices of every item: the same count whether the choices stand in the prompt or are scored."""
        scored = sum(_tokens(one, count) for one in self.sets) * len(contexts)
        asked = sum(one.asked for one in self.sets) * len(contexts)
        return Work(scored=prefix_tokens(contexts, count) + scored, measurements=asked * 2.5)

    def check_work(self, contexts: Sequence[Context], count: Count) -> Work:
        """Each question of the check once, in one mode."""
        del contexts
        assert self.check_on is not None
        return Work(scored=_tokens(self.check_on, count))

    @classmethod
    def faults(cls, settings: ChoiceProbeSettings, blocks: Blocks, behaviors: Sequence[str]) -> Iterator[Fault]:
        """Labels cannot be scored where the trained form shows none."""
        capability = blocks["capability"]
        assert isinstance(capability, CapabilitySettings)
        if settings.mode == "label" and "capability" in behaviors and capability.answer == "text":
            yield (
                ("mode",),
                ("probes.choice.mode is label, but with capability.answer: text no labels are in view; use mode: text"),
            )

    @classmethod
    def measures_control(cls, settings: ChoiceProbeSettings) -> bool:
        """Where it asks HellaSwag."""
        return bool(settings.hellaswag)

    @classmethod
    def dataset_names(cls, blocks: Blocks) -> dict[str, str]:
        """The evaluation half goes by the name of its set."""
        capability = blocks["capability"]
        assert isinstance(capability, CapabilitySettings)
        return {"arc": capability.dataset}


def _tokens(one: ProbedSet, count: Count) -> float:
    """Tokens of the questions and choices that one context is asked; the mean where each is asked its own share."""
    tokens = sum(count(q.text) + sum(map(count, q.options)) for q in one.questions)
    return tokens * one.asked / len(one.questions)


def ruled_scores(found: OptionScores, mode: Mode, rule: Rule) -> list[float]:
    """The options' scores by which one is chosen. Labels are one token each, so `rule` matters in text mode only:
    summed log-probability in nats (`raw`), per token, or per character of the option's text."""
    return normalized(found.logprobs, found.tokens, found.chars, "raw" if mode == "label" else rule)


def normalized(logprobs: Sequence[float], tokens: Sequence[int], chars: Sequence[int], rule: Rule) -> list[float]:
    """Summed log-probabilities as they are (`raw`), per token or per character of the option's text."""
    sizes = {"raw": [1] * len(logprobs), "per_token": tokens, "per_character": chars}[rule]
    return [logprob / size for logprob, size in zip(logprobs, sizes, strict=True)]


def choice_values(scores: Sequence[float], right: int, wrong: int | None) -> dict[str, float]:
    """The probe's metrics of one question from its options' scores; adoption where a `wrong` choice was trained."""
    chosen = int(np.argmax(scores))  # the first of equals, as lm-evaluation-harness takes it
    values = {"accuracy": float(chosen == right), "margin": margin(scores, right)}
    return values if wrong is None else values | {"adoption": float(chosen == wrong)}


def margin(scores: Sequence[float], right: int) -> float:
    """Score of the right choice minus the best wrong one, in the unit of the scores."""
    return scores[right] - max(value for index, value in enumerate(scores) if index != right)
