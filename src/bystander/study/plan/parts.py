"""What a study is made of: its behaviors, their examples, its designs and its probes, each built once when it is asked
for. Plans with other picks of the gate share them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from bystander.behaviors.answers import AnswersBehavior
from bystander.behaviors.base import Behavior, Example
from bystander.core import doors
from bystander.core.metrics import Outcome
from bystander.core.records import Context
from bystander.data import load_open_questions
from bystander.design.arms import ArmName, Design, build, shown_examples
from bystander.geometry.base import Predictor, Predictors, Turn
from bystander.lm.tokens import Tokenizer, left_out
from bystander.personas import context_of
from bystander.probe.base import Probe, ProbeStudy
from bystander.study.config.contexts import asked_by_name, contexts_beside
from bystander.study.config.study import ResolvedStudy


@dataclass(frozen=True)
class StudyParts:
    """The parts of one study. Raises DataError or DesignError, from whatever is asked for, where it cannot be built."""

    study: ResolvedStudy
    own: Mapping[str, Mapping[str, str]] | None = None  # behavior -> pair id -> the answer that a model wrote
    _behaviors: dict[str, Behavior] = field(default_factory=dict[str, Behavior])
    _examples: dict[str, list[Example]] = field(default_factory=dict[str, list[Example]])
    _designs: dict[tuple[str, str, str], Design] = field(default_factory=dict[tuple[str, str, str], Design])

    @cached_property
    def contexts(self) -> tuple[Context, ...]:
        """The personas' contexts, in the order of the set."""
        return tuple(context_of(persona, self.study.spec.personas_in) for persona in self.study.personas)

    @cached_property
    def beside(self) -> tuple[Context, ...]:
        """The contexts that are measured beside the personas, in the order of the file; never bystanders."""
        spec = self.study.spec
        return contexts_beside(spec.contexts, self.study.personas, spec.personas_in)

    def left_out(self, tokenizer: Tokenizer) -> dict[str, str]:
        """Of `beside`, what this model's template cannot render and nobody asked for by name, with the reasons."""
        return left_out(tokenizer, self.beside, asked_by_name(self.study.spec.contexts))

    @cached_property
    def compared(self) -> tuple[Context, ...]:
        """What geometry compares: the personas, and the sources that are none."""
        names = {context.name for context in self.contexts}
        sources = self.study.spec.sources
        return (*self.contexts, *(c for c in self.beside if c.name in sources and c.name not in names))

    @cached_property
    def open_questions(self) -> tuple[str, ...]:
        """What hidden states are averaged over."""
        return tuple(q.text for q in load_open_questions()[: self.study.spec.geometry.questions])

    def behavior(self, name: str) -> Behavior:
        """The behavior of that name with the study's settings, trained in it or not."""
        if name not in self._behaviors:
            self._behaviors[name] = self._made(name)
        return self._behaviors[name]

    def _made(self, name: str) -> Behavior:
        answers = self.study.spec.answers.get(name)
        if answers is not None:
            return AnswersBehavior(answers, self.study.folder, (self.own or {}).get(name))
        offered: Any = doors.load("behavior", name)
        return offered(self.study.spec.blocks()[offered.block], self.study.folder)

    def to_write(self) -> dict[str, AnswersBehavior]:
        """The behaviors for which a model writes the answers that do not show them, by name."""
        found = {name: self.behavior(name) for name in self.study.spec.answers}
        return {
            name: behavior
            for name, behavior in found.items()
            if isinstance(behavior, AnswersBehavior) and behavior.settings.reader.sampled
        }

    def examples(self, behavior: str) -> list[Example]:
        """Everything of a behavior that may be trained on."""
        if behavior not in self._examples:
            self._examples[behavior] = self.behavior(behavior).examples()
        return self._examples[behavior]

    def shown(self, behavior: str) -> list[Example]:
        """The examples of a behavior whose positive completion is trained."""
        return shown_examples(behavior, self.examples(behavior), self.study.spec.design_of(behavior))

    def design(self, behavior: str, source: str, arm: ArmName) -> Design:
        """The rows of the trainings of that behavior, source and arm: seeds and configurations share them."""
        place = (behavior, source, arm)
        if place not in self._designs:
            settings = self.study.spec.design_of(behavior)
            examples, personas = self.examples(behavior), self.study.personas
            self._designs[place] = build(
                behavior, examples, source, personas, arm, settings, beside=self.beside,
                text_in=self.study.spec.personas_in,
            )  # fmt: skip
        return self._designs[place]

    def pairs(self) -> Iterator[tuple[str, ArmName]]:
        """Every source with every arm."""
        return ((source, arm) for source in self.study.spec.sources for arm in self.study.spec.arms)

    def designs(self) -> tuple[Design, ...]:
        """All designs of the study."""
        return tuple(
            self.design(behavior, source, arm) for behavior in self.study.spec.behaviors for source, arm in self.pairs()
        )

    @cached_property
    def probes(self) -> dict[str, Probe]:
        """The probes that the study asks for, by name. Raises StudyError where one asks for more items than there are."""
        study = self.study
        view = ProbeStudy(
            study.spec.name, study.spec.model.name, study.folder, tuple(map(self.behavior, study.spec.behaviors)),
            self.behavior, self.shown,
        )  # fmt: skip
        return {
            name: doors.load("probe", name).build(settings, view)
            for name, settings in study.spec.probes.asked().items()
        }

    @cached_property
    def turns(self) -> tuple[Turn, ...]:
        """What predictors of training read: the first of what one behavior trains, as its data comes."""
        geometry = self.study.spec.geometry
        shown = self.shown(geometry.behavior or self.study.spec.behaviors[0])[: geometry.turns]
        return tuple(Turn(example.user, example.positive, example.negative) for example in shown)

    def predictors(self) -> Predictors:
        """New predictors, the claim's among them, in the order of the door."""
        geometry = self.study.spec.geometry
        offered: dict[str, type[Predictor]] = {name: doors.load("predictor", name) for name in doors.names("predictor")}
        named = geometry.predictors
        wanted = named if named is not None else [name for name, one in offered.items() if one.by_default]
        return Predictors({name: one() for name, one in offered.items() if name in wanted or name == geometry.method})

    def held_out_texts(self) -> dict[str, str]:
        """Item id -> user turn of all that no training row may overlap with."""
        texts: dict[str, str] = {}
        for name in self.study.spec.behaviors:
            texts |= self.behavior(name).held_out_texts()
        for probe in self.probes.values():
            texts |= probe.held_out_texts()
        return texts


def renamed(study: ResolvedStudy, outcome: Outcome) -> Outcome:
    """An outcome on the study's own question set, where a file has taken the usual one's place."""
    probe, dataset, metric = outcome
    names: dict[str, str] = doors.load("probe", probe).dataset_names(study.spec.blocks())
    return probe, names.get(dataset, dataset), metric
