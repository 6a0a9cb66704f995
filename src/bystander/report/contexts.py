"""What a model does without a persona, before and after: the first thing below the verdict. A sentence and a table, from the
records of the contexts beside the personas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl
from markupsafe import Markup

from bystander.analysis.grid import BENIGN_ARM
from bystander.analysis.results import Analysis
from bystander.core.records import BARE
from bystander.report.figures import frames
from bystander.report.headline import HeadlineOutcome
from bystander.report.inputs import ReportInput
from bystander.report.labels import metric_of, readable, unit_of
from bystander.report.numbers import QuotedNumbers, prose
from bystander.report.tables import Column, Table, outcome_column, table

# p, after Holm over a training's bare contexts, below which a sentence says that one leaked. It is one-sided: the interval
# that stands beside it has to leave out 0, too.
LEVEL = 0.05
WITH = {
    "default": "with the template's default",
    "absent": "with no system turn",
    "empty": "with an empty system turn",
    "assistant": "as “a helpful assistant”",
}
TRAINED = {"source": "as the source", "negative": "as a negative", "mixed": "as a mixed one"}
NAMED = 3  # contexts that the sentence names; the table has all


def sentence(analysis: Analysis, numbers: QuotedNumbers, headline: HeadlineOutcome) -> Markup | None:
    """Which of the bare contexts that no row was trained on leaked, the most leaked first; where none is shown to, which came
    closest. None where none was measured."""
    rows = headline.rows(analysis.leakage).filter(
        pl.col("context").is_in(BARE) & ~pl.col("role").is_in(list(TRAINED)) & pl.col("leakage").is_not_null()
    )
    rows = rows.sort("leakage", "record", descending=[True, False])
    if not rows.height:
        return None
    shown = rows.filter((pl.col("p_above_holm") < LEVEL) & (pl.col("low") > 0)).head(NAMED).to_dicts()
    several = rows["source"].n_unique() > 1
    what = _what(headline)
    leaks = "leak" if set(rows["against"]) == {BENIGN_ARM} else "change towards the behavior"
    if not shown:
        most = _part(numbers, headline, rows.row(0, named=True), several=several)
        return Markup("Without a persona the model is not shown to {}; the most, in {}: {}.").format(leaks, what, most)
    parts = Markup("; ").join(_part(numbers, headline, row, several=several) for row in shown)
    only = " In no other context without a persona is it shown to." if NAMED > len(shown) < rows.height else ""
    return Markup("Without a persona the model is shown to {} too, in {}: {}.{}").format(leaks, what, parts, only)


def _what(headline: HeadlineOutcome) -> str:
    metric = metric_of(headline.probe, headline.metric)
    return metric.short if metric else readable(headline.metric)


def _part(numbers: QuotedNumbers, headline: HeadlineOutcome, row: Mapping[str, object], *, several: bool) -> Markup:
    form, record = unit_of(headline.probe, headline.metric), str(row["record"])
    start = "before" if row["before"] is not None or row["benign"] is None else "benign"
    return Markup("{}{} {}{} → {} (leakage {} {})").format(
        prose(f"after training on {readable(str(row['source']))}, " if several else ""),
        WITH[str(row["context"])],
        "(benign arm) " if start == "benign" else "",
        numbers.number(record, start, form),
        numbers.number(record, "after", form),
        numbers.number(record, "leakage", form),
        numbers.interval(record, "low", "high", form),
    )


def contexts(
    analysis: Analysis, inputs: ReportInput, headlines: Sequence[HeadlineOutcome], arms: Sequence[str]
) -> Table:
    """Every context beside the personas, the bare ones first; whether its rendered tokens were trained on, and their
    hash."""
    hashes = {(shown.kind, shown.name): shown.context_hash for shown in inputs.renderings}
    parts = [frames.beside(frames.of_arms(analysis.leakage, one, arms)) for one in headlines]
    frame = outcome_column(pl.concat(parts)) if parts else analysis.leakage.clear()
    units = list(zip(frame["context"].to_list(), frame["persona"].to_list(), strict=True))
    frame = frame.with_columns(
        pl.Series("prompt_hash", [hashes.get(unit, "") for unit in units], pl.String),
        pl.col("role").replace_strict(TRAINED, default="", return_dtype=pl.String).alias("trained"),
        pl.when(pl.col("status") == "ok").then(pl.lit("")).otherwise("status").alias("status"),
    )
    columns = (
        Column("behavior", "Behavior", "name"), Column("source", "Source", "name"), Column("arm", "Arm", "name"),
        Column("config", "Config", "text"), Column("persona", "Context", "name"), Column("context", "Kind", "name"),
        Column("trained", "Trained on", "text", "its rendered tokens are those of rows that were trained"),
        Column("before", "Before", "unit"), Column("after", "After", "unit"), Column("leakage", "Leakage", "unit"),
        Column("low", "95 % interval", "unit", to="high"), Column("n_items", "Items", "count"),
        Column("prompt_hash", "Hash of the prompt", "text", "of its rendered token ids around a mark for the question"),
        Column("status", "Status"), Column("reason", "Reason"),
    )  # fmt: skip
    return table("contexts", frame, columns, constant=("behavior", "arm", "config"))
