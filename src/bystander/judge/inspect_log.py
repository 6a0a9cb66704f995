"""Judged samples as an Inspect `.eval` log: one for each adapter, checkpoint and behavior."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bystander.core.errors import JudgeError
from bystander.core.records import Completion, Measurement
from bystander.judge.provider import INSTALL

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample

METRICS = ("aligned", "coherent", "misaligned", "code", "refusal")


def write_judged_log(
    path: Path, completions: Sequence[Completion], measurements: Sequence[Measurement], *,
    task: str, model: str, judge: str, created: str, metadata: Mapping[str, str | int | float | None],
) -> Path:  # fmt: skip
    """Write completions and their measurements as a log that `inspect view` opens; returns its path.

    `path` ends in `.eval`; `created` is an ISO 8601 time, which the caller knows; `metadata` says which adapter,
    checkpoint, arm and seed this is. Only rows of the probe `judged` are read. A sample whose judgement failed has no
    score under that name, and its explanation says why. Raises JudgeError if Inspect is not installed.
    """
    try:
        from inspect_ai.log import write_eval_log
    except ImportError:
        raise JudgeError(INSTALL) from None
    if path.suffix != ".eval":
        raise JudgeError(f"{path} must end in .eval, or Inspect will not find it")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_eval_log(_log(completions, measurements, task, model, judge, created, metadata), str(path))
    return path


def _log(
    completions: Sequence[Completion], measurements: Sequence[Measurement],
    task: str, model: str, judge: str, created: str, metadata: Mapping[str, str | int | float | None],
) -> EvalLog:  # fmt: skip
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalMetric, EvalResults, EvalScore, EvalSpec, EvalStats

    by_sample: dict[tuple[str, str, str], dict[str, Measurement]] = {}
    own = {(c.context, c.persona, f"{c.item}/{c.sample}") for c in completions}  # rows may be those of other logs, too
    for row in measurements:
        if row.probe == "judged" and (row.context, row.persona, row.item) in own:
            by_sample.setdefault((row.context, row.persona, row.item), {})[row.metric] = row
    samples = [
        _sample(c, by_sample.get((c.context, c.persona, f"{c.item}/{c.sample}"), {}), model) for c in completions
    ]
    scores: list[EvalScore] = []
    for metric in METRICS:
        values = [rows[metric].value for rows in by_sample.values() if metric in rows]
        known = [value for value in values if value is not None]
        mean = {"mean": EvalMetric(name="mean", value=sum(known) / len(known))} if known else {}
        left = len(samples) - len(known)
        scores.append(
            EvalScore(name=metric, scorer=metric, metrics=mean, scored_samples=len(known), unscored_samples=left)
        )
    return EvalLog(
        status="success",
        eval=EvalSpec(
            created=created, task=task, model=model, dataset=EvalDataset(name=task, samples=len(samples)), config=EvalConfig(),
            metadata={**metadata, "judge": judge},
        ),
        stats=EvalStats(started_at=created, completed_at=created),
        results=EvalResults(total_samples=len(samples), completed_samples=len(samples), scores=scores),
        samples=samples,
    )  # fmt: skip


def _sample(completion: Completion, rows: Mapping[str, Measurement], model: str) -> EvalSample:
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ModelOutput
    from inspect_ai.scorer import Score

    stop = "max_tokens" if completion.finish_reason == "length" else "stop"
    scores = {
        name: Score(value=row.value, answer=completion.text, explanation=row.reason or None)
        for name in METRICS
        if (row := rows.get(name)) is not None and row.value is not None
    }
    return EvalSample(
        id=completion.id,
        epoch=1,
        input=completion.prompt,
        target="",
        output=ModelOutput.from_content(model, completion.text, stop_reason=stop),
        scores=scores,
        metadata={
            "persona": completion.persona, "context": completion.context, "item": completion.item, "sample": completion.sample,
            "seed": completion.seed, "tokens": completion.tokens, "context_hash": completion.context_hash,
            "failed": {name: f"{row.status}: {row.reason}" for name, row in rows.items() if row.value is None},
        },
    )  # fmt: skip
