"""Kept completions and their judge: `bystander judge RUN`, and Inspect's logs of judged samples. Nothing is sampled."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import polars as pl

from bystander.behaviors.misalignment import MisalignmentBehavior, MisalignmentSettings
from bystander.core.errors import StoreError
from bystander.core.files import compressed_lines, read_json, write_bytes, write_json, write_parquet
from bystander.core.progress import Bar
from bystander.core.records import MEASUREMENT_COLUMNS, Measurement, as_dict
from bystander.data.judge_questions import JudgedQuestion, load_judge_questions
from bystander.judge.answer_store import Ledger
from bystander.judge.cost import CostEstimate
from bystander.judge.inspect_log import write_judged_log
from bystander.judge.judging import Judge, Judgement, judge_completions, measure_all, refuse_failures
from bystander.judge.settings import JudgeSettings
from bystander.probe.judged import JudgedProbe
from bystander.probe.settings import JudgedProbeSettings
from bystander.results.answer_groups import Group, groups_of
from bystander.results.rubric_answers import Rubrics, rubrics_of
from bystander.study.config.study import ResolvedStudy
from bystander.study.store.cell_dir import MEASUREMENT_SCHEMA, Sampled
from bystander.study.store.kept_files import kept_copy
from bystander.study.store.run_dir import RunDir

USED = "used.json"  # names the judge whose folder the report reads
SUMMARY = "judge.json"
JUDGEMENTS = "judgements.jsonl.zst"
JUDGED_BY = ["probe", "dataset"]  # what a judge measures as a whole, or not at all
NOTHING_TO_JUDGE = (
    "has no answers that a judge could read; a study keeps them with `probes.judged`, with or without a judge, or with a "
    "`judge` scorer of `probes.scored`"
)


@dataclass(frozen=True, slots=True)
class Judging:
    """What `bystander judge` did. `measured` holds the probe `judged` of every group and what rubrics say in `scored`, `own`
    what the run's own judge had given for them (empty where there was none). Of the judgements `failed` are neither number nor class, and `decorated` had
    marks around them that were taken off."""

    folder: Path
    measured: pl.DataFrame
    own: pl.DataFrame
    completions: int
    failed: int
    decorated: int
    forecast: CostEstimate
    ledger: Ledger


def questions_of(run: RunDir, study: ResolvedStudy, file: Path | None) -> tuple[dict[str, JudgedQuestion], str]:
    """(questions by id, name of the set): `file`, or the run's copy of the study's own. Raises DataError where they cannot be
    read, StoreError for a copy that was changed."""
    file = file or kept_copy(run, "misalignment.questions")
    settings = study.spec.blocks()["misalignment"]
    assert isinstance(settings, MisalignmentSettings)
    found = load_judge_questions(file) if file else MisalignmentBehavior(settings, study.folder).questions()
    return {q.id: q for q in found}, settings.dataset


def judge_run(
    run: RunDir, study: ResolvedStudy, settings: JudgeSettings, cache: Path | None, bar: Bar, *,
    questions: Path | None = None, env_folder: Path | None = None,
) -> Judging:  # fmt: skip
    """Judge every kept completion of a run and write `judged/NAME/` beside its tables; the run's own stay as they are.

    Everything that can be known before a request is said first: no completions, unknown questions, the judge is the
    model under test, no key, the forecast passes the cap. Starting again pays for nothing twice. Raises StoreError,
    DataError or JudgeError; then nothing is written.
    """
    groups, rubrics = groups_of(run, JudgedProbe.name), rubrics_of(run, study)
    if not groups and rubrics is None:
        raise StoreError(f"{run.path} {NOTHING_TO_JUDGE}")
    asked, dataset = questions_of(run, study, questions)
    judge = Judge(settings, cache, purpose=f"judge {study.spec.name} {study.identity[:8]}", folder=env_folder)
    everything = [completion for group in groups for completion in group.completions]
    forecast = judge.estimate(everything, asked)
    if rubrics is not None:
        rubrics = rubrics.asking(judge)
        forecast = added(forecast, rubrics.estimate())
    judge.client.check_cap(forecast.dollars)
    judge.preflight([study.spec.model.name])
    before = judge.ledger()
    count = len(everything) + (len(rubrics.completions) if rubrics else 0)
    bar.start(f"{settings.model} judges {count:,} answers", 2 * len(everything) + (rubrics.replies if rubrics else 0))
    per_group: list[tuple[Group, list[Measurement]]] = []
    judgements: list[dict[str, Any]] = []
    for group, rows, kept in _judged(groups, asked, dataset, judge, rubrics, bar):
        per_group.append((group, rows))
        judgements += kept
    folder = judge_folder(run, settings.model)
    paid = judge.ledger().since(before)
    summary = {"model": settings.model, "base_url": settings.base_url, "paid": asdict(paid)}
    table = write_judged(folder, study, per_group, judgements, summary)
    write_json(run.judged_folder / USED, {"folder": folder.name, "model": settings.model})
    judged = table.select(JUDGED_BY).unique()
    own = run.table(run.measurements_file).join(judged, on=JUDGED_BY, how="semi", maintain_order="left")
    failed, decorated = counts(judgements)
    return Judging(folder, table, own, count, failed, decorated, forecast, paid)


def _judged(
    groups: Sequence[Group], asked: Mapping[str, JudgedQuestion], dataset: str, judge: Judge, rubrics: Rubrics | None, bar: Bar,
) -> Iterator[tuple[Group, list[Measurement], list[dict[str, Any]]]]:  # fmt: skip
    """(group, measurements, judgements as they are kept) as they come. Raises JudgeError where too many of a group failed."""
    for group in groups:
        found: list[Judgement] = []
        for one in judge_completions(group.completions, asked, judge):
            found.append(one)
            bar.advance()
        refuse_failures(found, judge.settings.failed_share)
        rows = stamped(measure_all(group.completions, found, dataset), group.sampled)
        yield group, rows, [{"cell": group.name, **asdict(one)} for one in found]
    for group, measured, details in rubrics.judged() if rubrics else ():
        kept = [{"cell": group.name, "judge": judge.settings.model, **one} for one in details]
        yield group, stamped(measured, group.sampled), kept
        bar.advance(sum(len(one["replies"]) for one in details))


def judge_folder(run: RunDir, model: str) -> Path:
    """Where the judgements of a model lie."""
    return run.judged_folder / re.sub(r"[^A-Za-z0-9.]+", "-", model)


def counts(judgements: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """(failed, decorated) of judgements as they are kept, a rubric's replies one by one."""
    replies = [reply for one in judgements for reply in one.get("replies", ())]
    failed = sum(reply["number"] is None and not reply["label"] for reply in replies)
    failed += sum(one["status"] == "failed" for one in judgements if "replies" not in one)
    return failed, sum(bool(one.get("decorated")) for one in judgements)


def added(one: CostEstimate, other: CostEstimate) -> CostEstimate:
    """Both together."""
    return CostEstimate(
        one.requests + other.requests, one.cached + other.cached, one.input_tokens + other.input_tokens,
        one.output_tokens + other.output_tokens, one.dollars + other.dollars, one.calibrated and other.calibrated,
    )  # fmt: skip


def write_judged(
    folder: Path, study: ResolvedStudy, per_group: Sequence[tuple[Group, Sequence[Measurement]]],
    judgements: Sequence[Mapping[str, Any]], summary: Mapping[str, Any],
) -> pl.DataFrame:  # fmt: skip
    """Write a judge's folder: measurements, raw judgements, Inspect's logs and `judge.json`, which is `summary` with counts.
    Returns the measurements."""
    rows = [as_dict(row) for _, measured in per_group for row in measured]
    table = pl.DataFrame(rows, schema=MEASUREMENT_SCHEMA)
    write_parquet(folder / "measurements.parquet", table)
    write_bytes(folder / JUDGEMENTS, compressed_lines(judgements))
    for group, measured in per_group:
        if group.sampled[0].stamp["probe"] != JudgedProbe.name:
            continue  # Inspect's logs hold the two scores of the judged probe
        _write_log(folder / "logs", group, measured, study, str(summary["model"]))
    failed, decorated = counts(judgements)
    completions = sum(len(group.sampled) for group, _ in per_group)
    found = {**summary, "completions": completions, "failed": failed, "decorated": decorated}
    write_json(folder / SUMMARY, found)
    return table


def stamped(measurements: Sequence[Measurement], sampled: Iterable[Sampled]) -> list[Measurement]:
    """Measurements with the training's columns of the completions that they belong to."""
    columns = {f.name for f in fields(Measurement)}
    stamps: dict[tuple[str, str, str], Mapping[str, Any]] = {
        (one.completion.context, one.completion.persona, f"{one.completion.item}/{one.completion.sample}"): {
            name: value for name, value in one.stamp.items() if name in columns and name != "probe"
        }
        for one in sampled
    }
    return [replace(row, **stamps[row.context, row.persona, row.item]) for row in measurements]


def judged_afterwards(run: RunDir, own: pl.DataFrame) -> tuple[pl.DataFrame, str] | None:
    """(rows, judge) that `bystander judge` gave, of the sets in which the run itself judged nothing, or of all where they are
    its own judge's answers read again; None where there are none."""
    used = run.judged_folder / USED
    if not used.is_file():
        return None
    found = read_json(used)
    rows = run.table(run.judged_folder / found["folder"] / "measurements.parquet")
    if not found.get("read_again"):
        rows = rows.join(own.select(JUDGED_BY).unique(), on=JUDGED_BY, how="anti", maintain_order="left")
    return (rows, str(found["model"])) if rows.height else None


def write_logs(run: RunDir, study: ResolvedStudy) -> list[Path]:
    """One `.eval` log for each adapter, checkpoint and behavior that the run's own judge has judged, in `logs/`. Logs that
    are there are left. Raises JudgeError if Inspect is not installed."""
    judged = study.spec.probes.asked().get(JudgedProbe.name)
    if not isinstance(judged, JudgedProbeSettings) or judged.judge is None:
        return []
    own = run.table(run.measurements_file).filter(pl.col("probe") == "judged")
    by_state: dict[tuple[Any, ...], list[Measurement]] = {}
    for row in own.select(MEASUREMENT_COLUMNS).iter_rows(named=True):
        one = Measurement(**row)
        by_state.setdefault(_state(row), []).append(one)
    written: list[Path] = []
    for group in groups_of(run, JudgedProbe.name):
        rows = by_state.get(_state(group.sampled[0].stamp), [])
        if rows and not (run.logs_folder / f"{group.name}.eval").is_file():
            written.append(_write_log(run.logs_folder, group, rows, study, judged.judge.model))
    return written


def _state(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("behavior", "source", "arm", "config", "seed", "checkpoint"))


def _write_log(folder: Path, group: Group, rows: Sequence[Measurement], study: ResolvedStudy, judge: str) -> Path:
    stamp = group.sampled[0].stamp
    metadata = {
        name: stamp[name] for name in ("behavior", "source", "arm", "config", "seed", "checkpoint", "weights_hash")
    }
    return write_judged_log(
        folder / f"{group.name}.eval", group.completions, rows, task=f"{study.spec.name}/{group.name}",
        model=f"{study.spec.model.name}", judge=judge, created=group.created, metadata=metadata,
    )  # fmt: skip
