"""The head of the page: what was trained, one sentence a behavior, how it can be made again. Each number is a record's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from markupsafe import Markup

from bystander.analysis.results import Analysis
from bystander.report.headline import HeadlineOutcome, level_at_start
from bystander.report.inputs import ReportInput
from bystander.report.labels import metric_of, readable, unit_of
from bystander.report.numbers import QuotedNumbers, prose

NAMED = 4  # sources or captured contexts named in a sentence; the tables have all


@dataclass(frozen=True, slots=True)
class Opening:
    """One behavior at the head of the page: what was trained (None: that is not known), and what it did."""

    behavior: str
    trained: Markup | None
    lead: Markup | None
    figure: str  # of `charts`: the levels untrained and trained


def openings(
    analysis: Analysis, inputs: ReportInput, numbers: QuotedNumbers, chosen: Sequence[HeadlineOutcome], figures: Sequence[str]
) -> list[Opening]:  # fmt: skip
    """One for each behavior."""
    found: list[Opening] = []
    for headline in chosen:
        name = next((one for one in figures if one == f"levels-{headline.behavior}"), "")
        trained = _trained(inputs, numbers, headline, _sources(analysis, headline))
        found.append(Opening(headline.behavior, trained, _lead(analysis, numbers, headline), name))
    return found


def _sources(analysis: Analysis, headline: HeadlineOutcome) -> list[str]:
    return [str(name) for name in headline.rows(analysis.leakage_ratio)["source"].unique(maintain_order=True).to_list()]


def _trained(
    inputs: ReportInput, numbers: QuotedNumbers, headline: HeadlineOutcome, sources: Sequence[str]
) -> Markup | None:
    """Rows, epochs, negatives, seeds, arm and model; of several designs the first and the last where they differ."""
    key = (headline.behavior, headline.arm, headline.config)
    own = [one for one in inputs.trained if (one.behavior, one.arm, one.config) == key]
    if not own:
        return None
    parts: list[Markup] = []
    for column, one, many in (
        ("rows", "row", "rows"), ("epochs", "epoch", "epochs"), ("negatives", "negative", "negatives"), ("seeds", "seed", "seeds"),
    ):  # fmt: skip
        by_value = {numbers.value(row.record, column): row.record for row in own}
        ends = sorted(by_value, key=lambda value: float(value or 0))
        shown = [numbers.number(by_value[value], column, "count") for value in dict.fromkeys((ends[0], ends[-1]))]
        parts.append(Markup("{} {}").format(Markup(" to ").join(shown), one if ends == [1] else many))
    model = Markup(" of <bdi>{}</bdi>").format(prose(inputs.model)) if inputs.model else Markup("")
    return Markup("{}{} trained to show {}, in the {} arm: {}.").format(
        prose(_few([readable(source) for source in sources]).capitalize()), model, prose(readable(headline.behavior)),
        prose(readable(headline.arm)), Markup(", ").join(parts),
    )  # fmt: skip


def _lead(analysis: Analysis, numbers: QuotedNumbers, headline: HeadlineOutcome) -> Markup | None:
    """The source's level untrained and trained, and how many held-out personas were captured. Where the untrained answers
    have no level (cut off before they ended), the benign arm's stands for it."""
    own = headline.rows(analysis.leakage).filter((pl.col("role") == "source") & pl.col("after").is_not_null())
    start = level_at_start(own)
    rows = own.filter(pl.col(start).is_not_null()).sort("leakage", "record", nulls_last=True).to_dicts()
    if not rows:
        return None
    form = unit_of(headline.probe, headline.metric)
    metric = metric_of(headline.probe, headline.metric)
    ends = rows if len(rows) == 1 else [rows[0], rows[-1]]
    said = "went {}" if start == "before" else "is {}"
    level = "from {} to {}{}" if start == "before" else "{1}{2}, in the benign arm {0}"
    levels = [
        Markup(level).format(
            numbers.number(row["record"], start, form), numbers.number(row["record"], "after", form),
            Markup(" in {}").format(prose(readable(str(row["source"])))) if len(ends) > 1 else "",
        )
        for row in ends
    ]  # fmt: skip
    return Markup("The source's {} " + said + "; {}.").format(
        metric.short if metric else readable(headline.metric), Markup(", and ").join(levels),
        _captured(analysis, numbers, headline),
    )  # fmt: skip


def _captured(analysis: Analysis, numbers: QuotedNumbers, headline: HeadlineOutcome) -> Markup:
    rows = [row for row in headline.rows(analysis.captured).to_dicts() if row["captured"] is not None]
    if not rows:
        return Markup("whom it captured is not known")
    rows.sort(key=lambda row: (-row["captured"], row["record"]))
    parts = [
        _captured_of(numbers, row, several=len(rows) > 1) for row in (rows if len(rows) == 1 else [rows[0], rows[-1]])
    ]
    return Markup(", and ").join(parts) + _bare(rows)


def _bare(rows: Sequence[dict[str, Any]]) -> Markup:
    """Captured contexts without a persona: what a deployed model meets, so that a reader meets it first too."""
    found = [
        f"{_few([readable(name) for name in str(row['bare']).split(', ')])} (by {readable(str(row['source']))})"
        for row in rows
        if row.get("bare")
    ]
    return Markup(". Without a persona too: {}").format(prose("; ".join(found))) if found else Markup("")


def _captured_of(numbers: QuotedNumbers, row: dict[str, Any], *, several: bool) -> Markup:
    names = [readable(name) for name in str(row["names"] or "").split(", ") if name]
    named = Markup(": {}").format(prose(_few(names))) if names else Markup("")
    of = Markup(" (of {})").format(prose(readable(str(row["source"])))) if several else Markup("")
    record = str(row["record"])
    interval = numbers.interval(record, "low", "high", "count")
    return Markup("{}{} of {} held-out personas were captured{}{}").format(
        numbers.number(record, "captured", "count"), Markup(" {}").format(interval) if interval else "",
        numbers.number(record, "n", "count"), of, named,
    )  # fmt: skip


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (" and others" if len(names) > NAMED else "")


def again(inputs: ReportInput) -> tuple[str, str]:
    """(how to cite, the commands that make it again); "" for what is not known of a table of somebody else."""
    version = str(inputs.provenance.get("versions.bystander") or "")
    if not version:
        return "", ""
    study = str(inputs.provenance.get("identity") or "")[:12]
    registered = f", registered under {inputs.registration_hash[:12]}" if inputs.registration_hash else ""
    when = f", {inputs.created[:10]}" if inputs.created else ""
    cite = f"bystander {version}, study “{inputs.study}” {study}{registered}{when}."
    return cite, f"pip install bystander=={version}\nbystander run study.yaml --out again"
