"""The scored probe: what a model answers by itself, and whether that shows a behavior, by scorers of the study's own."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from bystander.behaviors.answers import AnswersBehavior
from bystander.behaviors.base import Behavior
from bystander.behaviors.scorers import AnyScorer, JudgeScorer
from bystander.core.errors import StudyError
from bystander.core.hashing import seed_for
from bystander.core.metrics import Metric
from bystander.core.records import Completion, Context, Measurement, Status, without_default_earlier
from bystander.core.work import CHARACTERS_PER_TOKEN, TEMPLATE_TOKENS, Count, Work
from bystander.data.bank import OpenQuestion, load_open_questions
from bystander.judge.judging import Judge, refuse_failed
from bystander.judge.requests import Request
from bystander.judge.rubric import Reply, Rubric, judge_by, rubric_requests, together
from bystander.probe import judge_use
from bystander.probe.base import Probe, ProbeStudy, ProbeUnit, SampledMetrics
from bystander.probe.overlap import overlapped, sampled_units
from bystander.probe.scorers import BoundScorer, bind, shown_by, verdict_of
from bystander.probe.settings import ScoredProbeSettings

if TYPE_CHECKING:
    from bystander.lm.model import LoadedModel
    from bystander.lm.sample import SampleRequest

OPEN = "open"  # the built-in questions, for behaviors that have none of their own
Measured = tuple[list[Measurement], list[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """The questions that are asked for one behavior, and what scores the answers. Measurements of the behavior's own
    first scorer have the behavior's name as their dataset, those of another `behavior.scorer`."""

    name: str
    questions: tuple[OpenQuestion, ...]  # those that are asked
    scorers: tuple[BoundScorer, ...]
    kept: tuple[OpenQuestion, ...] = ()  # all that there are, none of which may be trained on


@dataclass(frozen=True, slots=True)
class ScoredProbe(Probe):
    """Every context x set x question x sample, each answer scored by every scorer of its set."""

    name: ClassVar[str] = "scored"
    Settings = ScoredProbeSettings
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric(
            "scored", "shown", 1, "fraction", "share of sampled answers that show the behavior, by a scorer",
            "shown", binary=True, spread=(0.55, 0.10),
        ),
        Metric(
            "scored", "score", 1, "score", "rubric's number, its range taken to 0-100, where the behavior raises it",
            "rubric score", spread=(25.0, 5.0),
        ),
        Metric(
            "scored", "score_falling", -1, "score", "rubric's number, its range taken to 0-100, where the behavior lowers it",
            "rubric score", spread=(25.0, 5.0),
        ),
    )  # fmt: skip
    headline: ClassVar[tuple[tuple[str, str], ...]] = ()
    of_files: ClassVar[tuple[str, ...]] = ("shown",)
    sampled: ClassVar[SampledMetrics | None] = SampledMetrics("shown", "score")

    sets: tuple[QuestionSet, ...]
    settings: ScoredProbeSettings = ScoredProbeSettings()
    judge: Judge | None = None
    group: int = 96  # requests a unit: peers' batch on a 2-core CPU (docs/performance.md)

    @classmethod
    def build(cls, settings: ScoredProbeSettings, study: ProbeStudy) -> Self:
        """The sets of the study's behaviors. Raises StudyError where nothing scores, or a rubric has no judge."""
        from bystander.lm.embedded import cache_dir

        found = [_set_of(behavior, settings, study) for behavior in study.behaviors]
        sets = tuple({one.name: one for one in found if one.scorers}.values())  # one set for all without questions
        if not sets:
            names = ", ".join(behavior.name for behavior in study.behaviors)
            raise StudyError(
                f"probes.scored: no scorer for the answers about {names}; give probes.scored.scorers, or scorers in the behavior's entry"
            )
        judge = None
        if any(scorer.rubric for one in sets for scorer in one.scorers):
            if settings.judge is None:
                raise StudyError("probes.scored: a scorer asks a judge; name it in probes.scored.judge: {model: ...}")
            judge = Judge(settings.judge, cache_dir() / "judge.sqlite", purpose=study.name, folder=study.folder)
        return cls(sets, settings, judge)

    def held_out_texts(self) -> dict[str, str]:
        """All questions of the sets, asked or not."""
        return {f"{self.name}/{one.name}/{q.id}": q.asked_text for one in self.sets for q in one.kept}

    def items(self) -> dict[str, int]:
        """The answers that each scorer sees."""
        return {s.dataset: len(one.questions) * self.settings.samples for one in self.sets for s in one.scorers}

    def decides(self) -> object:
        """Questions, scorers, sampling, judge."""
        s = self.settings
        asked = {one.name: [without_default_earlier(asdict(q)) for q in one.questions] for one in self.sets}
        sets = [[one.name, asked[one.name], [x.decides() for x in one.scorers]] for one in self.sets]
        sampling = [s.samples, s.max_tokens, s.temperature, s.seed, self.group]
        return [self.name, sets, sampling, self.judge.decides() if self.judge else None]

    def units(self, contexts: Sequence[Context]) -> list[str]:
        """One unit a group of requests."""
        each = sum(len(one.questions) for one in self.sets) * self.settings.samples
        return [f"scored/{index}" for index in range(math.ceil(len(contexts) * each / self.group))]

    def run(self, loaded: LoadedModel, contexts: Sequence[Context], done: Collection[str] = ()) -> Iterator[ProbeUnit]:
        """Sample group by group; while one group is scored the next is sampled. Raises JudgeError before a unit is
        yielded in which more than `judge.failed_share` of the replies failed."""
        settings = self.settings
        groups = sampled_units(
            loaded, self.name, self.requests(contexts), self.group, done,
            temperature=settings.temperature, max_tokens=settings.max_tokens,
        )  # fmt: skip
        yield from overlapped(self.name, groups, self.measured, _unit)

    def requests(self, contexts: Sequence[Context]) -> list[SampleRequest]:
        """Every request, in order; a seed is decided by persona, question, sample and `settings.seed` alone."""
        from bystander.lm.sample import SampleRequest

        seed = self.settings.seed
        return [
            SampleRequest(
                id=f"{context.label}/{one.name}/{question.id}/{index}", context=question.earlier.under(context), user=question.text,
                sample=index, seed=seed_for("scored", seed, context.label, question.id, index), item=f"{one.name}/{question.id}",
            )
            for context in contexts
            for one in self.sets
            for question in one.questions
            for index in range(self.settings.samples)
        ]  # fmt: skip

    def measured(self, completions: Sequence[Completion]) -> Measured:
        """(measurements, the judge's replies as JSON-able records) of sampled answers."""
        return self._measured(completions, [(one, scorer) for one in self.sets for scorer in one.scorers])

    def by_rubrics(self, completions: Sequence[Completion]) -> Measured:
        """The same of the scorers that ask a judge."""
        return self._measured(completions, [(one, s) for one in self.sets for s in one.scorers if s.rubric])

    def rubric_requests(self, completions: Sequence[Completion]) -> list[Request]:
        """All that a judge is asked about these answers."""
        assert self.judge is not None  # `build` asks for one
        found: list[Request] = []
        for one in self.sets:
            said = _said(one, completions)
            for rubric in (scorer.rubric for scorer in one.scorers if scorer.rubric):
                asked = [(question, c.text) for question, c in said]
                found += [draw for draws in rubric_requests(self.judge, rubric, asked) for draw in draws]
        return found

    def _measured(self, completions: Sequence[Completion], by: Sequence[tuple[QuestionSet, BoundScorer]]) -> Measured:
        rows: list[Measurement] = []
        details: list[dict[str, Any]] = []
        for one, scorer in by:
            said = _said(one, completions)
            if scorer.rubric is None:
                shows = verdict_of(scorer.settings)
                rows += [_row(scorer, c, "shown", float(shows(c.text))) for _, c in said]
                continue
            judged = self._judged(scorer, scorer.rubric, [(question, c.text) for question, c in said])
            for (_, completion), replies in zip(said, judged, strict=True):
                rows += judged_rows(scorer, completion, together(replies, scorer.rubric))
                draws = [asdict(reply) for reply in replies]
                details.append({"completion": completion.id, "dataset": scorer.dataset, "replies": draws})
        return rows, details

    def _judged(self, scorer: BoundScorer, rubric: Rubric, asked: Sequence[tuple[str, str]]) -> list[list[Reply]]:
        assert self.judge is not None  # `build` asks for one
        replies = judge_by(self.judge, rubric, asked)
        refuse_failed(
            [reply.reason for draws in replies for reply in draws if reply.failed], len(asked) * rubric.draws,
            self.judge.settings.failed_share, f"replies about {scorer.dataset}",
        )  # fmt: skip
        return replies

    def work(self, contexts: Sequence[Context], count: Count) -> Work:
        """Answers at their full length, and the judge's calls."""
        requests, s = self.requests(contexts), self.settings
        prompts = sum(count(r.user) + count(r.context.text) + TEMPLATE_TOKENS for r in requests)
        calls, read = 0, 0.0
        for one in self.sets:
            answers = len(contexts) * len(one.questions) * s.samples
            for rubric in (scorer.rubric for scorer in one.scorers if scorer.rubric):
                calls += answers * rubric.draws
                read += answers * rubric.draws * (len(rubric.prompt) / CHARACTERS_PER_TOKEN + s.max_tokens)
        scorers = sum(len(one.questions) * len(one.scorers) for one in self.sets)
        return Work(
            scored=prompts, sampled=len(requests) * s.max_tokens, judged=calls, judged_tokens=read,
            measurements=len(contexts) * scorers * s.samples * 2,
        )  # fmt: skip

    def check_model(self, names: Sequence[str]) -> str:
        """Whether the judge answers, where one is asked."""
        return judge_use.answers(self.judge, names)

    def dollars(self, work: Work) -> tuple[float, str]:
        """The judge's price, replies at their full length where they give reasons."""
        reasons = any(s.rubric.reasons_first for one in self.sets for s in one.scorers if s.rubric)
        if reasons and self.judge is not None:
            return judge_use.cost_of(self.judge, work, self.judge.settings.max_tokens)
        return judge_use.cost_of(self.judge, work)

    def dollars_paid(self) -> float:
        """The judge's ledger."""
        return judge_use.paid(self.judge)


def _set_of(behavior: Behavior, settings: ScoredProbeSettings, study: ProbeStudy) -> QuestionSet:
    own: list[AnyScorer] = behavior.scorers() if isinstance(behavior, AnswersBehavior) else []
    everything = behavior.open_questions()
    name = behavior.name if everything else OPEN
    kept = everything or load_open_questions()
    bound = [bind(scorer, name if at == 0 else f"{name}.{scorer.label}", study.folder) for at, scorer in enumerate(own)]
    bound += [bind(scorer, f"{name}.{scorer.label}", study.folder) for scorer in settings.scorers]
    twice = [dataset for dataset, times in Counter(one.dataset for one in bound).items() if times > 1]
    if twice:
        raise StudyError(f"probes.scored: two scorers are called {', '.join(twice)}; give them a `name` each")
    return QuestionSet(name, tuple(kept[: settings.questions]), tuple(bound), tuple(kept))


def _row(
    scorer: BoundScorer, completion: Completion, metric: str, value: float | None, status: Status = "ok", reason: str = ""
) -> Measurement:  # fmt: skip
    note = "answer truncated at max_tokens" if completion.finish_reason == "length" else ""
    return Measurement(
        behavior="", probe="scored", dataset=scorer.dataset, metric=metric, context=completion.context,
        persona=completion.persona, item=f"{completion.item}/{completion.sample}", value=value, status=status,
        reason=reason or note, context_hash=completion.context_hash, question=completion.item, sample=completion.sample,
    )  # fmt: skip


def _said(one: QuestionSet, completions: Sequence[Completion]) -> list[tuple[str, Completion]]:
    """(what was asked, answer) of the answers to a set's questions."""
    asked = {f"{one.name}/{q.id}": q.earlier.transcript(q.text) for q in one.questions}
    return [(asked[c.item], c) for c in completions if c.item.partition("/")[0] == one.name]


def judged_rows(scorer: BoundScorer, completion: Completion, reply: Reply) -> list[Measurement]:
    """`shown`, and the number where the rubric has numbers: no score of an answer that the judge puts into a class."""
    assert isinstance(scorer.settings, JudgeScorer)
    assert scorer.rubric is not None
    numbers = [] if scorer.rubric.low is None else ["score_falling" if scorer.falls else "score"]
    if reply.failed:
        return [_row(scorer, completion, metric, None, "failed", reply.reason) for metric in ("shown", *numbers)]
    rows = [_row(scorer, completion, "shown", float(shown_by(scorer.settings, reply)), reason=reply.reason)]
    low, high = scorer.rubric.low, scorer.rubric.high
    if low is None or high is None:
        return rows
    if reply.number is None:
        why = f"the judge calls it {reply.label}"
        return [*rows, *(_row(scorer, completion, metric, None, "refused", why) for metric in numbers)]
    taken = 100 * (reply.number - low) / (high - low)
    return [*rows, *(_row(scorer, completion, metric, taken, reason=reply.reason) for metric in numbers)]


def _unit(key: str, completions: list[Completion], measured: Measured) -> ProbeUnit:
    measurements, details = measured
    return ProbeUnit(key, measurements, completions, details)
