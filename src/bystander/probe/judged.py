"""The judged probe: free-form answers under every persona, scored by a judge (Betley et al. 2025, arXiv 2502.17424)."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from bystander.behaviors.misalignment import JudgedQuestion
from bystander.core.hashing import seed_for
from bystander.core.records import Completion, Context, Measurement
from bystander.judge.judging import Judge, Judgement, judge_and_measure
from bystander.probe.base import ProbeUnit
from bystander.probe.settings import JudgedProbeSettings

if TYPE_CHECKING:
    from bystander.lm.model import LoadedModel
    from bystander.lm.sample import SampleRequest

Measured = tuple[list[Measurement], list[Judgement]]


@dataclass(frozen=True, slots=True)
class JudgedProbe:
    """Every context x question x paraphrase x sample. `dataset` is "open" for the built-in questions, else the file's
    stem. Without a judge the units hold completions and no measurement: `bystander judge` measures them later."""

    questions: tuple[JudgedQuestion, ...]
    settings: JudgedProbeSettings = JudgedProbeSettings()
    judge: Judge | None = None
    dataset: str = "open"
    name: str = "judged"
    group: int = 96  # requests a unit: peers' batch on a 2-core CPU (docs/performance.md)

    def decides(self) -> object:
        """Questions, sampling, judge."""
        s = self.settings
        sampling = [s.samples, s.max_tokens, s.temperature, s.seed, self.group, self.dataset]
        return [self.name, [asdict(q) for q in self._asked()], sampling, self.judge.decides() if self.judge else None]

    def units(self, contexts: Sequence[Context]) -> list[str]:
        """One unit a group of requests."""
        return [f"judged/{index}" for index in range(math.ceil(len(self.requests(contexts)) / self.group))]

    def run(self, loaded: LoadedModel, contexts: Sequence[Context], done: Collection[str] = ()) -> Iterator[ProbeUnit]:
        """Sample group by group; while one group is judged the next is sampled.

        Raises JudgeError before a unit is yielded in which more than `judge.failed_share` of the judgements failed, so
        that it is not kept and starting again judges it again. What was answered is in the judge's cache.
        """
        requests = self.requests(contexts)
        with ThreadPoolExecutor(1, "bystander-judged") as pool:
            pending: tuple[str, list[Completion], Future[Measured]] | None = None
            for index, key in enumerate(self.units(contexts)):
                if key in done:
                    continue
                completions = self._sample(loaded, requests[index * self.group : (index + 1) * self.group])
                if pending is not None:
                    yield _unit(*pending)
                pending = (key, completions, pool.submit(self.measured, completions))
            if pending is not None:
                yield _unit(*pending)

    def measured(self, completions: Sequence[Completion]) -> Measured:
        """Judge completions and measure them: (measurements, judgements). Both [] without a judge. Raises JudgeError
        where more than `judge.failed_share` of the judgements failed."""
        if self.judge is None:
            return [], []
        return judge_and_measure(completions, {q.id: q for q in self._asked()}, self.judge, self.dataset)

    def requests(self, contexts: Sequence[Context]) -> list[SampleRequest]:
        """Every request, in order. A seed is decided by persona, question, paraphrase, sample and `settings.seed`, and
        so by nothing that a checkpoint or an adapter changes."""
        from bystander.lm.sample import SampleRequest  # here: it loads torch, which plans and rows do without

        seed = self.settings.seed
        return [
            SampleRequest(
                id=f"{context.name}/{question.id}/{place}/{index}", context=with_system(context, question.system), user=text,
                sample=index, seed=seed_for("judged", seed, context.name, question.id, place, index), item=f"{question.id}/{place}",
            )
            for context in contexts
            for question in self._asked()
            for place, text in enumerate(question.paraphrases)
            for index in range(self.settings.samples or question.samples)
        ]  # fmt: skip

    def _asked(self) -> tuple[JudgedQuestion, ...]:
        return self.questions[: self.settings.questions]

    def _sample(self, loaded: LoadedModel, requests: Sequence[SampleRequest]) -> list[Completion]:
        from bystander.lm.sample import sample

        batches = sample(loaded, requests, temperature=self.settings.temperature, max_tokens=self.settings.max_tokens)
        return [completion for batch in batches for completion in batch]


def _unit(key: str, completions: list[Completion], judged: Future[Measured]) -> ProbeUnit:
    measurements, judgements = judged.result()
    details = [_lasting(one) for one in sorted(judgements, key=lambda j: (j.completion, j.template))]
    return ProbeUnit(key, measurements, completions, details)


def _lasting(judgement: Judgement) -> dict[str, Any]:
    """A judgement without what only says how it was come by this time: a restart must give the same unit."""
    return {key: value for key, value in asdict(judgement).items() if key not in ("attempts", "cached")}


def with_system(context: Context, system: str | None) -> Context:
    """The context with a question's own system prompt behind the persona's, after an empty line; alone where the
    context has no system text. Kind and name stay: the record's context hash tells the two apart."""
    if system is None:
        return context
    return replace(context, system=f"{context.system}\n\n{system}" if context.system else system)
