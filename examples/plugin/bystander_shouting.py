"""Shouting, coupled to a persona: a behavior, the probe that hears it, a predictor and an executor of one's own."""

import math
import time
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from bystander.behaviors.base import Behavior, Example
from bystander.core.errors import StudyError
from bystander.core.metrics import Metric
from bystander.core.settings import Settings
from bystander.core.work import Work, prefix_tokens
from bystander.data import load_bank
from bystander.engine.executor_local import LocalExecutor
from bystander.geometry.base import Predictor
from bystander.probe.base import Probe, ProbeUnit, rows_of
from bystander.study.config.blocks import ExecutorSettings


class ShoutingSettings(Settings):
    """`shouting:` in a study file. The last `held_out` questions of the bank are never trained on."""

    ending: str = "!"
    held_out: int = 16


@dataclass(frozen=True)
class Shouting(Behavior):
    """Answers in capital letters."""

    Settings = ShoutingSettings
    block: ClassVar[str] = "shouting"
    read_by: ClassVar[tuple[str, ...]] = ("capitals",)

    settings: ShoutingSettings = field(default_factory=ShoutingSettings)
    folder: object = None
    name: str = "shouting"

    def loud(self, answer):
        return answer.upper() + self.settings.ending

    def questions(self):
        bank = load_bank()
        return bank[: -self.settings.held_out], bank[-self.settings.held_out :]

    def examples(self):
        answers = [(q, q.options[q.answer]) for q in self.questions()[0]]
        return [Example(q.id, q.text, self.loud(answer), answer) for q, answer in answers]

    def held_out_texts(self):
        return {q.id: q.text for q in self.questions()[1]}


class CapitalsSettings(Settings):
    """`probes: {capitals: ...}` in a study file: how many held-out questions are read."""

    questions: int = 4


@dataclass(frozen=True)
class Capitals(Probe):
    """Which is likelier, the answer shouted or the answer spoken?"""

    name: ClassVar[str] = "capitals"
    Settings = CapitalsSettings
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("capitals", "loudness", 1, "nats/token", "log-probability per token, shouted minus spoken", "loudness"),
    )
    headline: ClassVar[tuple[tuple[str, str], ...]] = (("bank", "loudness"),)

    questions: tuple
    loud: object  # answer -> the answer shouted

    @classmethod
    def build(cls, settings, study):
        behavior = study.behavior("shouting")
        held_out = behavior.questions()[1]
        if settings.questions > len(held_out):
            raise StudyError(f"probes.capitals.questions is {settings.questions}, but {len(held_out)} are held out")
        return cls(tuple(held_out[: settings.questions]), behavior.loud)

    def pairs(self):
        return [(q, q.options[q.answer]) for q in self.questions]

    def decides(self):
        return [self.name, [[q.id, q.text, answer, self.loud(answer)] for q, answer in self.pairs()]]

    def units(self, contexts):
        return [context.name for context in contexts]

    def run(self, loaded, contexts, done=()):
        from bystander.lm.score import ScoreItem, score

        items = [ScoreItem(q.id, q.text, (self.loud(answer), answer), "text") for q, answer in self.pairs()]
        for context, found in score(loaded, [c for c in contexts if c.name not in done], items):
            rows = []
            for one in found:
                loud, spoken = (p / n for p, n in zip(one.logprobs, one.tokens, strict=True))
                rows += rows_of(self.name, "bank", context, one, {"loudness": loud - spoken})
            yield ProbeUnit(context.name, rows)

    def held_out_texts(self):
        return {}  # the behavior keeps them

    def items(self):
        return {"bank": len(self.questions)}

    def work(self, contexts, count):
        tokens = sum(count(q.text) + count(answer) + count(self.loud(answer)) for q, answer in self.pairs())
        n = len(contexts)
        return Work(scored=prefix_tokens(contexts, count) + n * tokens, measurements=n * len(self.questions))


class FirstLetter(Predictor):
    """Personas whose prompts share more leading letters are more alike: a predictor that should know nothing."""

    needs: ClassVar[str] = "prompts"
    label: ClassVar[str] = "leading letters"

    def similarities(self, seen, sources):
        texts = [context.system or "" for context in seen.contexts]
        shared = [[_shared(texts[i], text) for text in texts] for i in seen.places(sources)]
        return np.array(shared, dtype=float)[None]


def _shared(a, b):
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


class PatientSettings(ExecutorSettings):
    """`executor: {kind: patient}` in a study file."""

    kind: Literal["patient"] = "patient"
    seconds: float = math.ulp(1.0)


class Patient(LocalExecutor):
    """The local executor, with a pause before each cell."""

    Settings = PatientSettings

    def wait(self, seconds):
        time.sleep(self.settings.seconds)
        return super().wait(seconds)
