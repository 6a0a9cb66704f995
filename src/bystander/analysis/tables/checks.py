"""Did the measurement work: failed shares of every outcome, and how far each moved over all contexts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import polars as pl

from bystander.analysis import keys
from bystander.analysis.grid import PairedGrid
from bystander.analysis.keys import KEYS, OUTCOME, OutcomeKey, SeedRow, TrainingKey
from bystander.analysis.settings import AnalysisSettings
from bystander.analysis.stats.intervals import crossed
from bystander.analysis.tables.sample import EVERYTHING
from bystander.core.metrics import is_control


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRow(SeedRow):
    """One row per training and outcome, over all contexts; the untrained model has rows of its own."""

    mode: Annotated[str, "how a probe with several ways measures (label, text), where the study says so"]
    control: Annotated[bool, "a metric that the behavior should not move"]
    n_values: Annotated[int, "values asked for"]
    n_failed: Annotated[int, "values with status failed or truncated"]
    n_missing: Annotated[int, "values asked for before training and never after it"]
    n_refused: Annotated[int, "answers of a class without a score (code, a refusal); not a failure"]
    failed_share: Annotated[float, "(n_failed + n_missing) / (n_values + n_missing)"]
    limit: Annotated[float, "share of failed values above which the outcome is refused"]
    before: Annotated[float, "mean of the untrained model"] = np.nan
    after: Annotated[float, "mean at the last checkpoint"] = np.nan
    change: Annotated[float, "after - before, not signed by the behavior's direction"] = np.nan
    low: keys.Low = np.nan
    high: keys.High = np.nan
    status: keys.RowStatus
    reason: keys.RowReason


Counts = dict[tuple[Any, ...], tuple[int, int, int, float | None]]


def counted(table: pl.DataFrame) -> Counts:
    """(KEYS, OUTCOME) -> values, failed ones, those without a score, and their mean; in order. `table` from
    `pairs.prepared`."""
    found = table.group_by([*KEYS, *OUTCOME]).agg(
        pl.col("rows").sum(), pl.col("bad").sum(), pl.col("refused").sum(), pl.col("value").mean()
    )
    found = found.with_columns(pl.col(*KEYS, *OUTCOME).cast(pl.String)).sort([*KEYS, *OUTCOME], nulls_last=True)
    return {tuple(row[:7]): row[7:] for row in found.iter_rows()}


def check_rows(whole: Sequence[PairedGrid], counts: Counts, settings: AnalysisSettings) -> list[CheckRow]:
    """Failed shares of every outcome, untrained and trained, and how far each moved."""
    rows: list[CheckRow] = []
    for key, (*numbers, mean) in counts.items():
        if key[1] is None:  # the untrained model belongs to no source
            outcome = OutcomeKey(*key[len(KEYS) :])
            record = "/".join(["checks", "untrained", *outcome])
            before = np.nan if mean is None else mean
            rows.append(_row(record, TrainingKey("", "", "", ""), outcome, numbers, settings, before=before))
    for grid in whole:
        numbers = counts[(*grid.training.design, *grid.outcome)][:3]
        change = grid.after - grid.untrained(settings.failed_limit)
        estimate, both = crossed(change, EVERYTHING).within(grid.unit), np.isfinite(change)
        rows.append(_row(
            grid.record("checks", None), grid.training, grid.outcome, numbers, settings, grid.absent,
            before=float(grid.before[both].mean()) if both.any() else np.nan,
            after=float(grid.after[both].mean()) if both.any() else np.nan,
            change=estimate.value, low=estimate.low, high=estimate.high,
        ))  # fmt: skip
    return rows


def _row(
    record: str, training: TrainingKey, outcome: OutcomeKey, numbers: Sequence[int], settings: AnalysisSettings,
    missing: int = 0, **means: float,
) -> CheckRow:  # fmt: skip
    """`numbers`: of values, of failed ones, of those without a score."""
    total, bad, refused = numbers
    share = (bad + missing) / (total + missing) if total else 0.0
    notes = [f"{bad} of {total} values failed ({share:.1%})"] if bad else []
    notes += [f"{missing} values asked for before training were never asked after it"] if missing else []
    notes += [f"{refused} of {total} have no score (code, a refusal)"] if refused else []
    return CheckRow(
        record=record, training=training, seed=None, outcome=outcome, mode="", control=is_control(*outcome), n_values=total,
        n_failed=bad, n_missing=missing, n_refused=refused, failed_share=share, limit=settings.failed_limit,
        status="refused" if share > settings.failed_limit else "ok", reason="; ".join(notes), **means,
    )  # fmt: skip
