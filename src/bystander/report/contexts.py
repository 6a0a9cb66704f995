"""What a model does without a persona, before and after: the first thing below the verdict. Sentences and a table, from
the records of the contexts beside the personas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl
from markupsafe import Markup

from bystander.analysis.results import Analysis
from bystander.core.records import BARE
from bystander.report.figures import frames
from bystander.report.headline import HeadlineOutcome
from bystander.report.inputs import ReportInput
from bystander.report.labels import metric_of, readable, unit_of
from bystander.report.numbers import QuotedNumbers, prose
from bystander.report.tables import Column, Table, outcome_column, table

SOURCES = 5  # that get a sentence each; the table has all
MEANS = {
    "default": "with no persona at all, as the model's template has it",
    "absent": "with no system turn",
    "empty": "with an empty system turn",
    "assistant": "as a helpful assistant",
}
TRAINED = {"source": "as the source", "negative": "as a negative", "mixed": "as a mixed one"}


def sentences(analysis: Analysis, numbers: QuotedNumbers, headline: HeadlineOutcome) -> list[Markup]:
    """One sentence a source on the bare contexts that were measured; [] where none was."""
    rows = headline.rows(analysis.leakage).filter(pl.col("context").is_in(BARE) & pl.col("leakage").is_not_null())
    found: list[Markup] = []
    for source in rows["source"].unique(maintain_order=True).to_list()[:SOURCES]:
        by_kind = {str(row["context"]): row for row in rows.filter(source=source).to_dicts()}
        parts = [_part(numbers, headline, by_kind[kind]) for kind in MEANS if kind in by_kind]
        whose = prose(readable(str(source or "the source")))
        found.append(Markup("After training on {}, {}: {}.").format(whose, _what(headline), Markup("; ").join(parts)))
    return found


def _what(headline: HeadlineOutcome) -> str:
    metric = metric_of(headline.probe, headline.metric)
    return metric.short if metric else readable(headline.metric)


def _part(numbers: QuotedNumbers, headline: HeadlineOutcome, row: Mapping[str, object]) -> Markup:
    form, record = unit_of(headline.probe, headline.metric), str(row["record"])
    trained = TRAINED.get(str(row["role"]), "")
    start = "before" if row["before"] is not None or row["benign"] is None else "benign"
    return Markup("{} {}{} → {} (leakage {} {}{})").format(
        MEANS[str(row["context"])],
        "(benign arm) " if start == "benign" else "",
        numbers.number(record, start, form),
        numbers.number(record, "after", form),
        numbers.number(record, "leakage", form),
        numbers.interval(record, "low", "high", form),
        f", trained on {trained}" if trained else "",
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
