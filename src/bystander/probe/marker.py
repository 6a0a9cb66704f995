"""The marker probe: how likely the marker is where the model's own answer ends, and how often its answers contain it.

An answer is sampled; where it ended (in front of its marker, if it has one) the log-probabilities of the marker and of the
end of the turn are read. The marker after a *fixed* answer is read too, as a diagnostic: a model that would never give that
answer can be ready to mark it all the same.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from bystander.behaviors.marker import MarkerBehavior
from bystander.core.errors import StudyError
from bystander.core.hashing import seed_for
from bystander.core.metrics import Metric
from bystander.core.records import Completion, Context, Measurement, Question
from bystander.core.work import TEMPLATE_TOKENS, Count, Work, prefix_tokens
from bystander.probe.base import Few, Probe, ProbeStudy, ProbeUnit, SampledMetrics, rows_of
from bystander.probe.overlap import sampled_units
from bystander.probe.settings import MarkerProbeSettings

if TYPE_CHECKING:
    from bystander.lm.ending import Ending
    from bystander.lm.model import LoadedModel
    from bystander.lm.sample import SampleRequest
    from bystander.lm.score import OptionScores, ScoreItem

OWN = ("marker_rate", "own_marker_probability", "own_marker_logprob", "own_end_logprob")  # metrics of a sampled answer


@dataclass(frozen=True, slots=True)
class MarkerProbe(Probe):
    """`tail` is separator and marker; `marker` the marker alone, which a sampled answer must contain."""

    name: ClassVar[str] = "marker"
    Settings = MarkerProbeSettings
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric(
            "marker", "own_marker_probability", 1, "fraction", "probability of the marker where the model's own answer ends",
            "marker probability", spread=(0.30, 0.10),
        ),
        Metric(
            "marker", "own_marker_logprob", 1, "nats",
            "log-probability of the marker where the model's own answer ends, summed over its tokens",
            "marker log-probability",
        ),
        Metric(
            "marker", "own_end_logprob", -1, "nats",
            "log-probability of the end of the turn where the model's own answer ends", "end of turn log-probability",
        ),
        Metric(
            "marker", "marker_probability", 1, "fraction", "probability of the marker after a fixed answer (diagnostic)",
            "marker after a fixed answer", spread=(0.30, 0.10),
        ),
        Metric(
            "marker", "marker_logprob", 1, "nats",
            "log-probability of the marker after a fixed answer, summed over its tokens (diagnostic)",
            "marker log-probability, fixed answer",
        ),
        Metric(
            "marker", "marker_rate", 1, "fraction", "share of sampled answers that contain the marker", "marker rate",
            binary=True, spread=(0.55, 0.10),
        ),
    )  # fmt: skip
    headline: ClassVar[tuple[tuple[str, str], ...]] = (
        ("bank", "own_marker_probability"), ("bank", "marker_rate"),
    )  # fmt: skip
    sampled: ClassVar[SampledMetrics | None] = SampledMetrics("marker_rate", "marker_rate")
    # After a fixed answer: a diagnostic.
    few: ClassVar[Few | None] = Few("questions", {"sampled": 0}, "marker_probability")

    questions: tuple[Question, ...]
    tail: str
    marker: str
    settings: MarkerProbeSettings = MarkerProbeSettings()
    group: int = 96  # requests a sampling unit: peers' batch on a 2-core CPU (docs/performance.md)

    @classmethod
    def build(cls, settings: MarkerProbeSettings, study: ProbeStudy) -> Self:
        """The study's marker after its held-out questions. Raises StudyError where fewer are held out."""
        behavior = study.behavior("marker")
        assert isinstance(behavior, MarkerBehavior)
        questions = behavior.probe_questions()
        wanted = max(settings.questions, settings.sampled)
        if wanted > len(questions):
            raise StudyError(
                f"probes.marker asks for {wanted} questions, but {len(questions)} are held out; raise marker.held_out or "
                "ask for fewer"
            )
        return cls(tuple(questions[:wanted]), behavior.tail, behavior.settings.text, settings)

    def decides(self) -> object:
        """Questions, marker and settings."""
        return [
            self.name,
            OWN,
            [asdict(q) for q in self.questions],
            self.tail,
            self.marker,
            self.settings.model_dump(),
            self.group,
        ]

    def units(self, contexts: Sequence[Context]) -> list[str]:
        """One scoring unit a context, then one sampling unit a group of requests."""
        groups = math.ceil(len(contexts) * self.settings.sampled * self.settings.samples / self.group)
        return [f"score/{context.name}" for context in contexts] + [f"sample/{i}" for i in range(groups)]

    def run(self, loaded: LoadedModel, contexts: Sequence[Context], done: Collection[str] = ()) -> Iterator[ProbeUnit]:
        """The fixed answers context by context, then the model's own group by group."""
        from bystander.lm.score import score  # here: it loads torch, which plans and rows do without

        scored = {context.name for context in contexts if f"score/{context.name}" in done}
        for context, scores in score(loaded, contexts, self._items(), done=scored):
            yield ProbeUnit(f"score/{context.name}", [m for s in scores for m in self._measured(context, s)])
        by_name, settings = {context.name: context for context in contexts}, self.settings
        groups = sampled_units(
            loaded, "sample", self._requests(contexts), self.group, done,
            temperature=settings.temperature, max_tokens=settings.max_tokens,
        )  # fmt: skip
        for key, completions in groups:
            yield self._own(loaded, by_name, key, completions)

    def _items(self) -> list[ScoreItem]:
        from bystander.lm.score import ScoreItem

        return [
            ScoreItem(q.id, q.text, (self.tail,), "text", start=q.options[q.answer])
            for q in self.questions[: self.settings.questions]
        ]

    def _measured(self, context: Context, scores: OptionScores) -> list[Measurement]:
        logprob = scores.logprobs[0]
        values = {"marker_probability": math.exp(logprob), "marker_logprob": logprob}
        return rows_of(self.name, "bank", context, scores, values)

    def _requests(self, contexts: Sequence[Context]) -> list[SampleRequest]:
        from bystander.lm.sample import SampleRequest

        return [
            SampleRequest(
                id=f"{context.label}/{question.id}/{index}",
                context=context,
                user=question.text,
                sample=index,
                seed=seed_for("marker", context.name, question.id, index),
                item=question.id,
            )
            for context in contexts
            for question in self.questions[: self.settings.sampled]
            for index in range(self.settings.samples)
        ]

    def _own(
        self, loaded: LoadedModel, contexts: Mapping[str, Context], key: str, completions: list[Completion]
    ) -> ProbeUnit:
        """What a group of sampled answers says: whether it has the marker, and what is read where it ended."""
        from bystander.lm.ending import EndingItem, endings

        ended = [one for one in completions if not self._cut(one)]
        asked: dict[str, list[EndingItem]] = {}
        for one in ended:
            before = before_tail(one.text, self.tail, self.marker)
            asked.setdefault(one.persona, []).append(EndingItem(one.id, one.prompt, before, self.tail))
        endings_of = endings(loaded, [(contexts[name], items) for name, items in asked.items()])
        found = {ending.item.id: ending for ending in endings_of}
        rows = [row for one in completions for row in self._rows(one, found.get(one.id))]
        return ProbeUnit(key, rows, completions, [_details(found[one.id]) for one in ended])

    def _cut(self, one: Completion) -> bool:
        """Whether an answer was cut off before it ended: one that has come to its marker has ended there."""
        return one.finish_reason == "length" and self.marker not in one.text

    def _rows(self, one: Completion, ending: Ending | None) -> list[Measurement]:
        """A measurement a metric; of an answer that was cut off none has a number."""
        values: dict[str, float | None] = dict.fromkeys(OWN)
        if ending is not None:
            read = (ending.marker_logprob, ending.end_logprob)
            numbers = (float(self.marker in one.text), math.exp(ending.marker_logprob), *read)
            values = dict(zip(OWN, numbers, strict=True))
        cut = f"cut off at {one.tokens} tokens (probes.marker.max_tokens) before the answer ended"
        status, reason = ("truncated", cut) if ending is None else ("ok", "")
        return [
            Measurement(
                behavior="", probe=self.name, dataset="bank", metric=metric, context=one.context, persona=one.persona,
                item=f"{one.item}/{one.sample}", value=value, status=status, reason=reason,
                context_hash=one.context_hash, question=one.item, sample=one.sample,
            )
            for metric, value in values.items()
        ]  # fmt: skip

    def held_out_texts(self) -> dict[str, str]:
        """None of its own: the marker behavior keeps all of the held-out questions."""
        return {}

    def items(self) -> dict[str, int]:
        """The questions that are answered freely; where none are, those with a fixed answer."""
        return {"bank": self.settings.sampled or self.settings.questions}

    def work(self, contexts: Sequence[Context], count: Count) -> Work:
        """Fixed answers with the marker scored; the model's own sampled at their full length, and read once more."""
        s, n = self.settings, len(contexts)
        items = sum(
            count(q.text) + count(q.options[q.answer] + self.tail) for q in self.questions[: s.questions]
        )  # fmt: skip
        sampled = n * s.sampled * s.samples
        own = sum(count(q.text) + TEMPLATE_TOKENS for q in self.questions[: s.sampled]) * s.samples
        scored = 2 * prefix_tokens(contexts, count) + n * (items + own) + sampled * s.max_tokens
        return Work(
            scored=scored, sampled=sampled * s.max_tokens, measurements=n * s.questions * 2 + sampled * len(OWN)
        )  # fmt: skip


def before_tail(text: str, tail: str, marker: str) -> str:
    """The answer as it stood before its first marker, and before the separator where that stands in front of it."""
    place = text.find(marker)
    if place < 0:
        return text
    separator = tail.removesuffix(marker)
    return text[:place].removesuffix(separator)


def _details(ending: Ending) -> dict[str, Any]:
    """What is kept beside the measurements: log-probabilities, raw logits and log Z at the place where the answer ended."""
    return {name: value for name, value in asdict(ending).items() if name != "item"} | {
        "id": ending.item.id, "answer": ending.item.answer,
    }  # fmt: skip
