"""The marker probe: how likely the marker is after an ordinary answer, and how often sampled answers contain it."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from bystander.behaviors.marker import MarkerBehavior
from bystander.core.errors import StudyError
from bystander.core.hashing import seed_for
from bystander.core.metrics import Metric
from bystander.core.records import Completion, Context, Measurement, Question
from bystander.core.work import Count, Work, prefix_tokens
from bystander.probe.base import Probe, ProbeStudy, ProbeUnit, SampledMetrics, rows_of
from bystander.probe.settings import MarkerProbeSettings

if TYPE_CHECKING:
    from bystander.lm.model import LoadedModel
    from bystander.lm.sample import SampleRequest
    from bystander.lm.score import OptionScores, ScoreItem


@dataclass(frozen=True, slots=True)
class MarkerProbe(Probe):
    """`tail` is separator and marker; `marker` the marker alone, which a sampled answer must contain."""

    name: ClassVar[str] = "marker"
    Settings = MarkerProbeSettings
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric(
            "marker", "marker_probability", 1, "fraction", "probability of the marker after the answer",
            "marker probability", spread=(0.30, 0.10),
        ),
        Metric(
            "marker", "marker_logprob", 1, "nats", "log-probability of the marker, summed over its tokens",
            "marker log-probability",
        ),
        Metric(
            "marker", "marker_rate", 1, "fraction", "share of sampled answers that contain the marker", "marker rate",
            binary=True, spread=(0.55, 0.10),
        ),
    )  # fmt: skip
    headline: ClassVar[tuple[tuple[str, str], ...]] = (("bank", "marker_probability"), ("bank", "marker_rate"))
    sampled: ClassVar[SampledMetrics | None] = SampledMetrics("marker_rate", "marker_rate")

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
        """Scoring context by context, then sampling group by group."""
        from bystander.lm.sample import sample  # here: it loads torch, which plans and rows do without
        from bystander.lm.score import score

        left = [context for context in contexts if f"score/{context.name}" not in done]
        for context, scores in score(loaded, left, self._items()):
            yield ProbeUnit(f"score/{context.name}", [m for s in scores for m in self._measured(context, s)])
        requests = self._requests(contexts)
        by_name = {context.name: context for context in contexts}
        for index in range(0, len(requests), self.group):
            key = f"sample/{index // self.group}"
            if key in done:
                continue
            batches = sample(
                loaded,
                requests[index : index + self.group],
                temperature=self.settings.temperature,
                max_tokens=self.settings.max_tokens,
            )
            completions = [completion for batch in batches for completion in batch]
            yield ProbeUnit(key, [self._rate(by_name[c.persona], c) for c in completions], completions)

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

    def _rate(self, context: Context, completion: Completion) -> Measurement:
        return Measurement(
            behavior="",
            probe=self.name,
            dataset="bank",
            metric="marker_rate",
            context=context.kind,
            persona=context.name,
            item=f"{completion.item}/{completion.sample}",
            value=float(self.marker in completion.text),
            context_hash=completion.context_hash,
            question=completion.item,
            sample=completion.sample,
        )

    def held_out_texts(self) -> dict[str, str]:
        """None of its own: the marker behavior keeps all of the held-out questions."""
        return {}

    def items(self) -> dict[str, int]:
        """The teacher-forced questions."""
        return {"bank": self.settings.questions}

    def work(self, contexts: Sequence[Context], count: Count) -> Work:
        """Each question with its answer and the marker scored, and the sampled answers at their full length."""
        s, n = self.settings, len(contexts)
        items = sum(
            count(q.text) + count(q.options[q.answer] + self.tail) for q in self.questions[: s.questions]
        )  # fmt: skip
        sampled = n * s.sampled * s.samples
        return Work(
            scored=prefix_tokens(contexts, count) + n * items, sampled=sampled * s.max_tokens,
            measurements=n * s.questions * 2 + sampled,
        )  # fmt: skip
