"""Kept answers of the scored probe whose rubrics are asked of another judge, or whose judge's replies are read again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from bystander.core.errors import JudgeError
from bystander.core.records import Completion, Measurement
from bystander.judge.answer_store import AnswerStore, RawAnswer
from bystander.judge.cost import CostEstimate
from bystander.judge.judging import Judge
from bystander.judge.rubric import Reply, Rubric, read_again, together
from bystander.probe.base import ProbeStudy
from bystander.probe.scored import QuestionSet, ScoredProbe, judged_rows
from bystander.probe.scorers import BoundScorer
from bystander.probe.settings import ScoredProbeSettings
from bystander.results.answer_groups import Group, groups_of
from bystander.study.config.study import ResolvedStudy
from bystander.study.plan.parts import StudyParts
from bystander.study.store.kept_files import with_copies
from bystander.study.store.run_dir import RunDir

OF_RUBRICS = {"completion", "dataset", "replies"}  # what tells a rubric's replies from other details of a cell


@dataclass(frozen=True, slots=True)
class Rubrics:
    """The scored probe of a run, as far as its scorers ask a judge. `groups`: its kept answers, a model state each."""

    probe: ScoredProbe
    groups: tuple[Group, ...]

    @property
    def completions(self) -> list[Completion]:
        """Every answer that a rubric is asked about."""
        names = {one.name for one, _ in self.scorers()}
        return [c for group in self.groups for c in group.completions if c.item.partition("/")[0] in names]

    @property
    def replies(self) -> int:
        """What a judge is asked for in all."""
        return sum(rubric.draws for c in self.completions for one, rubric in self.rubrics() if _is_about(c, one))

    def scorers(self) -> Iterator[tuple[QuestionSet, BoundScorer]]:
        """The scorers that ask a judge, each with its questions."""
        return ((one, scorer) for one in self.probe.sets for scorer in one.scorers if scorer.rubric is not None)

    def rubrics(self) -> Iterator[tuple[QuestionSet, Rubric]]:
        """Their rubrics."""
        return ((one, scorer.rubric) for one, scorer in self.scorers() if scorer.rubric is not None)

    def asking(self, judge: Judge) -> Rubrics:
        """The same, asked of another judge; how it samples and how long it writes stay the study's, since rubrics need it."""
        own = self.probe.settings.judge
        assert own is not None  # no rubric without a judge
        update = {"temperature": own.temperature, "max_tokens": own.max_tokens, "top_logprobs": own.top_logprobs}
        other = Judge(judge.settings.model_copy(update=update), judge.cache, judge.purpose, judge.folder)
        return replace(self, probe=replace(self.probe, judge=other))

    def estimate(self) -> CostEstimate:
        """What asking would cost."""
        judge = self.probe.judge
        assert judge is not None  # `asking` gives one
        return judge.client.estimate(self.probe.rubric_requests(self.completions))

    def judged(self) -> Iterator[tuple[Group, list[Measurement], list[dict[str, Any]]]]:
        """(group, measurements, replies as they are kept). Raises JudgeError as the probe does."""
        for group in self.groups:
            measurements, details = self.probe.by_rubrics(group.completions)
            if measurements:
                yield group, measurements, details

    def again(
        self, group: Group, kept: dict[tuple[str, str], list[dict[str, Any]]], store: AnswerStore | None
    ) -> tuple[list[Measurement], list[dict[str, Any]]]:
        """(measurements, replies) of a group's kept replies by (completion, dataset), read by this version's rules. Raises
        JudgeError for an answer whose replies are not kept."""
        rows: list[Measurement] = []
        details: list[dict[str, Any]] = []
        for one, scorer in self.scorers():
            assert scorer.rubric is not None
            for completion in (c for c in group.completions if _is_about(c, one)):
                old = kept.get((completion.id, scorer.dataset))
                if old is None:
                    raise JudgeError(
                        f"no reply about {completion.id!r} by {scorer.dataset} is kept in {group.name}: not all was judged. "
                        "Judge it again with --model; what was answered is not paid for again"
                    )
                replies = [_read(reply, scorer.rubric, store) for reply in old]
                rows += judged_rows(scorer, completion, together(replies, scorer.rubric))
                details.append(
                    {"completion": completion.id, "dataset": scorer.dataset, "replies": [asdict(r) for r in replies]}
                )
        return rows, details


def _is_about(completion: Completion, one: QuestionSet) -> bool:
    return completion.item.partition("/")[0] == one.name


def _read(kept: dict[str, Any], rubric: Rubric, store: AnswerStore | None) -> Reply:
    reply = Reply(kept["number"], kept["label"], kept["reason"], kept["text"], kept.get("key", ""))
    raw = store.get(reply.key) if store is not None and reply.key else None
    return read_again(reply, raw or RawAnswer(reply.key, reply.text, reason=reply.reason), rubric)


def rubrics_of(run: RunDir, study: ResolvedStudy) -> Rubrics | None:
    """The rubrics of a run, its files read from the run's own copies; None where its study asks none, or nothing was sampled
    yet. Raises DataError where its files cannot be read, JudgeError where they ask other questions than the run did."""
    if not isinstance(study.spec.probes.asked().get(ScoredProbe.name), ScoredProbeSettings):
        return None
    groups = groups_of(run, ScoredProbe.name)
    if not groups:
        return None
    whole = with_copies(study, run)
    settings, spec, parts = whole.spec.probes.asked()[ScoredProbe.name], whole.spec, StudyParts(whole)
    assert isinstance(settings, ScoredProbeSettings)
    behaviors = tuple(map(parts.behavior, spec.behaviors))
    view = ProbeStudy(spec.name, spec.model.name, whole.folder, behaviors, parts.behavior, parts.shown)
    found = Rubrics(ScoredProbe.build(settings, view), tuple(groups))
    if not list(found.scorers()):
        return None
    asked = {f"{one.name}/{question.id}" for one, _ in found.scorers() for question in one.questions}
    unknown = next((c for c in found.completions if c.item not in asked), None)
    if unknown is not None:
        raise JudgeError(
            f"completion {unknown.id!r} answers {unknown.item!r}, which the study does not ask now: put its files back as the run "
            "had them"
        )
    return found
