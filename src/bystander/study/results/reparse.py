"""`bystander judge RUN --reparse`: a judge's kept raw answers read again by the rules of this version. Nothing is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from bystander.probe.settings import JudgedProbeSettings
from bystander.study.config.study import ResolvedStudy
from bystander.study.results.rejudge import (
    JUDGEMENTS,
    SUMMARY,
    USED,
    Group,
    counts,
    judge_folder,
    judged_groups,
    questions_of,
    stamped,
    write_judged,
)
from bystander.study.store.run_dir import RunDir

OF_A_JUDGEMENT = {"completion", "template", "label", "judge", "key"}  # what tells it from other details of a cell
Place = tuple[str, str, str]  # group, completion, template
Kept = Mapping[str, Any]  # a judgement as it is kept: `asdict`, without what only told how it was come by


@dataclass(frozen=True, slots=True)
class Reparsed:
    """What came of it. `changed`: judgements with another label or score than before; `failed_before` of them were neither
    number nor class."""

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
    groups = judged_groups(run)
    asked, dataset = questions_of(run, study, questions)
    own = _own_judge(study)
    model = model or _used(run) or own
    if model is None:
        raise StoreError(
            f"{run.path} keeps no judge's answers yet; `bystander judge {run.path} --model ...` asks for them"
        )
    folder = judge_folder(run, model)
    afterwards = (folder / JUDGEMENTS).is_file()
    if not afterwards and model != own:
        raise StoreError(
            f"{run.path} keeps no answers of {model}; it has those of {', '.join(_judges(run, own)) or 'none'}"
        )
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
    summary = read_json(folder / SUMMARY) if (folder / SUMMARY).is_file() else {"model": model}
    measured = write_judged(folder, study, per_group, after, summary)
    if model == own or _used(run) in (None, model):
        write_json(run.judged_folder / USED, {"folder": folder.name, "model": model, "read_again": model == own})
    changed = sum((a["label"], a["score"]) != (b["label"], b["score"]) for a, b in zip(before, after, strict=True))
    failed, decorated = counts(after)
    failed_before = sum(one["status"] == "failed" for one in before)
    return Reparsed(folder, model, measured, len(after), changed, failed_before, failed, decorated)


def _own_judge(study: ResolvedStudy) -> str | None:
    settings = study.spec.probes.asked().get(JudgedProbe.name)
    return settings.judge.model if isinstance(settings, JudgedProbeSettings) and settings.judge else None


def _used(run: RunDir) -> str | None:
    used = run.judged_folder / USED
    return str(read_json(used)["model"]) if used.is_file() else None


def _judges(run: RunDir, own: str | None) -> list[str]:
    """The judges whose answers a run keeps."""
    files = sorted(run.judged_folder.glob(f"*/{SUMMARY}")) if run.judged_folder.is_dir() else []
    return list(dict.fromkeys([*([own] if own else []), *(str(read_json(file)["model"]) for file in files)]))


def _afterwards(folder: Path) -> dict[Place, Kept]:
    """What `bystander judge` has kept."""
    return {_place(str(line["cell"]), line): line for line in read_lines(folder / JUDGEMENTS)}


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
