"""`bystander judge RUN --reparse`: a judge's kept raw answers read again by the rules of this version. Nothing is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from bystander.core.errors import StoreError
from bystander.core.files import read_json, read_lines, write_json
from bystander.core.records import Completion, Measurement
from bystander.data.judge_questions import JudgedQuestion
from bystander.judge.answer_store import AnswerStore, RawAnswer
from bystander.judge.judging import TEMPLATES, Judgement, measure_all, question_of
from bystander.judge.parse import Parsed, parse
from bystander.probe.judged import JudgedProbe
from bystander.probe.scored import ScoredProbe
from bystander.probe.settings import JudgedProbeSettings, ScoredProbeSettings
from bystander.results.answer_groups import Group, groups_of
from bystander.results.rejudge import (
    JUDGEMENTS,
    NOTHING_TO_JUDGE,
    SUMMARY,
    USED,
    counts,
    judge_folder,
    questions_of,
    stamped,
    write_judged,
)
from bystander.results.rubric_answers import OF_RUBRICS, Rubrics, rubrics_of
from bystander.study.config.study import ResolvedStudy
from bystander.study.store.run_dir import RunDir

OF_A_JUDGEMENT = {"completion", "template", "label", "judge", "key"}  # what tells it from other details of a cell
Place = tuple[str, str, str]  # group, completion, template
Kept = Mapping[str, Any]  # a judgement as it is kept: `asdict`, without what only told how it was come by


@dataclass(frozen=True, slots=True)
class Reparsed:
    """What came of it, a rubric's replies counted one by one. `changed`: judgements with another label or score than before;
    `failed_before` of them were neither number nor class."""

    folder: Path
    model: str
    measured: pl.DataFrame
    judgements: int
    changed: int
    failed_before: int
    failed: int
    decorated: int


def reparse_run(
    run: RunDir, study: ResolvedStudy, model: str | None, cache: Path | None, *, questions: Path | None = None
) -> Reparsed:
    """Read a judge's raw answers again and write its folder anew: `model`'s, else those that the report reads, else those of
    the run's own judge. `cache`: the judge's answers with the likelihood of other tokens, which the run itself does not keep;
    where an answer is not in it, a score that was weighted stays as it is.

    Raises StoreError where the run keeps no answer of that judge, JudgeError for answers to other questions."""
    groups, rubrics = groups_of(run, JudgedProbe.name), rubrics_of(run, study)
    if not groups and rubrics is None:
        raise StoreError(f"{run.path} {NOTHING_TO_JUDGE}")
    asked, dataset = questions_of(run, study, questions)
    own = _own_judges(study)
    model = _kept_judge(run, model, own)
    folder = judge_folder(run, model)
    afterwards = (folder / JUDGEMENTS).is_file()
    if not afterwards:  # the cells keep the replies of each probe's own judge
        groups = groups if own.get(JudgedProbe.name) == model else []
        rubrics = rubrics if own.get(ScoredProbe.name) == model else None
    store = AnswerStore(cache) if cache is not None and cache.is_file() else None
    kept = _afterwards(folder) if afterwards else _in_cells(run, groups)
    per_group: list[tuple[Group, list[Measurement]]] = []
    before: list[Kept] = []
    after: list[dict[str, Any]] = []
    for group in groups:
        old = _kept_of(group, kept, folder if afterwards else run.path)
        new = [_again(completion, one, asked, store) for completion, one in old]
        per_group.append((group, stamped(measure_all(group.completions, new, dataset), group.sampled)))
        before += [one for _, one in old]
        after += [{"cell": group.name, **asdict(one)} for one in new]
    for group, old, measured, details in _rubrics_again(run, rubrics, folder if afterwards else None, store):
        per_group.append((group, stamped(measured, group.sampled)))
        before += old
        after += [{"cell": group.name, "judge": model, **one} for one in details]
    summary = read_json(folder / SUMMARY) if (folder / SUMMARY).is_file() else {"model": model}
    measured = write_judged(folder, study, per_group, after, summary)
    is_own = model in own.values()
    if is_own or _used(run) in (None, model):
        write_json(run.judged_folder / USED, {"folder": folder.name, "model": model, "read_again": is_own})
    said_before, said_after = _verdicts(before), _verdicts(after)
    changed = sum(a != b for a, b in zip(said_before, said_after, strict=True))
    failed, decorated = counts(after)
    return Reparsed(folder, model, measured, len(said_after), changed, counts(before)[0], failed, decorated)


def _kept_judge(run: RunDir, model: str | None, own: Mapping[str, str]) -> str:
    """The judge whose answers are read: `model`, else the one that the report reads, else the run's own. Raises StoreError
    where none of its answers are kept."""
    model = model or _used(run) or next(iter(own.values()), None)
    if model is None:
        raise StoreError(
            f"{run.path} keeps no judge's answers yet; `bystander judge {run.path} --model ...` asks for them"
        )
    if model not in own.values() and not (judge_folder(run, model) / JUDGEMENTS).is_file():
        raise StoreError(
            f"{run.path} keeps no answers of {model}; it has those of {', '.join(_judges(run, own)) or 'none'}"
        )
    return model


def _verdicts(judgements: Sequence[Kept]) -> list[tuple[Any, Any]]:
    """(class, number) of every judgement, and of every reply to a rubric."""
    return [
        (one["label"], one["number"] if "number" in one else one["score"])
        for judgement in judgements
        for one in judgement.get("replies", [judgement])
    ]


def _rubrics_again(
    run: RunDir, rubrics: Rubrics | None, folder: Path | None, store: AnswerStore | None
) -> Iterator[tuple[Group, list[Kept], list[Measurement], list[dict[str, Any]]]]:
    """(group, replies as they were, measurements, replies as they are now read), of the replies in `folder`, or of those in
    the run's cells. Nothing where none are kept."""
    if rubrics is None:
        return
    kept = _replies_of_cells(run, rubrics) if folder is None else _replies_afterwards(folder)
    for group in rubrics.groups if kept else ():
        of_group = kept.get(group.name, {})
        measured, details = rubrics.again(group, {at: one["replies"] for at, one in of_group.items()}, store)
        if details:
            yield group, [of_group[one["completion"], one["dataset"]] for one in details], measured, details


Replies = dict[str, dict[tuple[str, str], Kept]]  # by group; by completion and dataset


def _replies_afterwards(folder: Path) -> Replies:
    found: Replies = {}
    for line in read_lines(folder / JUDGEMENTS):
        if line.keys() >= OF_RUBRICS:
            found.setdefault(str(line["cell"]), {})[str(line["completion"]), str(line["dataset"])] = line
    return found


def _replies_of_cells(run: RunDir, rubrics: Rubrics) -> Replies:
    """A training's cell keeps the replies of all its checkpoints in order: the first about a completion is the first's."""
    found: Replies = {}
    for cell in run.complete_cells():
        names = [group.name for group in rubrics.groups if group.cell == cell.manifest().name]
        times: Counter[tuple[str, str]] = Counter()
        for line in cell.details() if names else ():
            if line.keys() >= OF_RUBRICS:
                place = str(line["completion"]), str(line["dataset"])
                found.setdefault(names[times[place]], {})[place] = line
                times[place] += 1
    return found


def _own_judges(study: ResolvedStudy) -> dict[str, str]:
    """Probe -> the judge that the run itself asks."""
    asked = study.spec.probes.asked()
    found = {name: asked.get(name) for name in (JudgedProbe.name, ScoredProbe.name)}
    return {
        name: settings.judge.model
        for name, settings in found.items()
        if isinstance(settings, JudgedProbeSettings | ScoredProbeSettings) and settings.judge
    }


def _used(run: RunDir) -> str | None:
    used = run.judged_folder / USED
    return str(read_json(used)["model"]) if used.is_file() else None


def _judges(run: RunDir, own: Mapping[str, str]) -> list[str]:
    """The judges whose answers a run keeps."""
    files = sorted(run.judged_folder.glob(f"*/{SUMMARY}")) if run.judged_folder.is_dir() else []
    return list(dict.fromkeys([*own.values(), *(str(read_json(file)["model"]) for file in files)]))


def _afterwards(folder: Path) -> dict[Place, Kept]:
    """What `bystander judge` has kept."""
    lines = [line for line in read_lines(folder / JUDGEMENTS) if line.keys() >= OF_A_JUDGEMENT]
    return {_place(str(line["cell"]), line): line for line in lines}


def _in_cells(run: RunDir, groups: Sequence[Group]) -> dict[Place, Kept]:
    """What the run's own judge answered. A training's cell keeps the judgements of all its checkpoints in order, and so do
    its completions."""
    found: dict[Place, Kept] = {}
    for cell in run.complete_cells():
        lines = [line for line in cell.details() if line.keys() >= OF_A_JUDGEMENT]
        start, name = 0, cell.manifest().name
        for group in groups:
            if group.cell == name:
                part = lines[start : start + len(TEMPLATES) * len(group.sampled)]
                start += len(part)
                found |= {_place(group.name, line): line for line in part}
    return found


def _place(group: str, line: Kept) -> Place:
    return group, str(line["completion"]), str(line["template"])


def _kept_of(group: Group, kept: Mapping[Place, Kept], where: Path) -> list[tuple[Completion, Kept]]:
    """Every completion of a group with each of its judgements. Raises StoreError for one that is not kept."""
    found: list[tuple[Completion, Kept]] = []
    for completion in group.completions:
        for template in TEMPLATES:
            one = kept.get((group.name, completion.id, template))
            if one is None:
                raise StoreError(
                    f"{where} keeps no {template} judgement of {completion.id!r} in {group.name}: not all was judged. Judge it "
                    "again with --model; what was answered is not paid for again"
                )
            found.append((completion, one))
    return found


def _again(
    completion: Completion, one: Kept, asked: Mapping[str, JudgedQuestion], store: AnswerStore | None
) -> Judgement:
    """A judgement by this version's rules."""
    question = question_of(completion, asked)
    raw = store.get(str(one["key"])) if store is not None else None
    raw = raw or RawAnswer(str(one["key"]), one["text"], reason=str(one["reason"]) if one["text"] is None else "")
    if one["weighted"] and not raw.alternatives:
        parsed = Parsed("number", float(one["score"]), weighted=True, decorated=bool(one.get("decorated")))
    else:
        parsed = parse(raw, question.prompts[str(one["template"])])
    return Judgement(
        completion=str(one["completion"]), template=str(one["template"]), status="ok" if parsed.label else "failed",
        label=parsed.label, score=parsed.score, weighted=parsed.weighted, reason=parsed.reason, text=one["text"],
        judge=str(one["judge"]), key=str(one["key"]), attempts=int(one.get("attempts", 0)), cached=True,
        decorated=parsed.decorated,
    )  # fmt: skip


__all__ = ["Reparsed", "reparse_run"]
