"""The head of the page: what was trained, one sentence a behavior, how it can be made again. Each number is a record's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl
from markupsafe import Markup

from bystander.analysis.keys import BENIGN
from bystander.analysis.results import Analysis
from bystander.core.errors import few_names
from bystander.core.records import Verdict
from bystander.report.headline import UNTOLD, HeadlineOutcome, captures, level_at_start
from bystander.report.inputs import ReportInput
from bystander.report.labels import bare_names, first_names, metric_of, readable, unit_of
from bystander.report.numbers import QuotedNumbers, named, prose

NAMED = 4  # sources or captured contexts named in a sentence; the tables have all


@dataclass(frozen=True, slots=True)
class Opening:
    """One behavior at the head of the page: what was trained (None: that is not known), what it did to the source and whom
    it reached, and what that decides."""

    behavior: str
    trained: Markup | None
    lead: Markup | None
    reached: Markup | None
    verdict: Markup
    figure: str  # of `charts`: the levels untrained and trained


def openings(
    analysis: Analysis, inputs: ReportInput, numbers: QuotedNumbers, chosen: Sequence[HeadlineOutcome], figures: Sequence[str]
) -> list[Opening]:  # fmt: skip
    """One for each behavior."""
    found: list[Opening] = []
    for headline in chosen:
        name = next((one for one in figures if one == f"levels-{headline.behavior}"), "")
        trained = _trained(inputs, numbers, headline, _sources(analysis, headline))
        lead, decided = _lead(analysis, numbers, headline), _verdict(analysis, numbers, headline)
        reached = _captured(analysis, numbers, headline) if lead else None
        found.append(Opening(headline.behavior, trained, lead, reached, decided, name))
    return found


def asked(inputs: ReportInput) -> tuple[str, ...]:
    """What this run itself asks, by its settings: the study's question may be wider. One text a behavior and a hypothesis."""
    behaviors = (
        f"{readable(name)}: models trained to {inputs.taught.get(name) or f'show {readable(name)}'}"
        for name in inputs.behaviors
    )
    claims = (
        f"hypothesis {readable(name)}: {statement}" if statement else f"hypothesis {readable(name)}"
        for name, statement in inputs.hypotheses.items()
    )
    return (*behaviors, *claims)


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
    model = named(inputs.model) if inputs.model else Markup("The model")
    taught = inputs.taught.get(headline.behavior) or f"show {readable(headline.behavior)}"
    who = [readable(source) for source in sources]
    whom = prose(f" as {who[0]} and not as others" if len(who) == 1 else " as one persona, and not as others")
    each = Markup("") if len(who) == 1 else Markup(" Sources, each with trainings of its own: {}.").format(
        named(few_names(who))
    )  # fmt: skip
    twin = any((one.behavior, one.arm) == (headline.behavior, BENIGN) for one in inputs.trained)
    beside = ", beside the benign arm: the same rows with the source's answered like the others'" if twin else ""
    return Markup("{} trained to {}{}.{} {}; {} arm{}.").format(
        model, prose(taught), whom, each, Markup(", ").join(parts), prose(readable(headline.arm)), beside
    )


def _lead(analysis: Analysis, numbers: QuotedNumbers, headline: HeadlineOutcome) -> Markup | None:
    """The source's level after this training, after the benign arm and untrained (left out where untrained answers were cut
    off before they ended), of the sources that leaked least and most."""
    own = headline.rows(analysis.leakage).filter((pl.col("role") == "source") & pl.col("after").is_not_null())
    start = level_at_start(own)
    rows = own.filter(pl.col(start).is_not_null()).sort("leakage", "record", nulls_last=True).to_dicts()
    if not rows:
        return None
    form = unit_of(headline.probe, headline.metric)
    metric = metric_of(headline.probe, headline.metric)
    ends = rows if len(rows) == 1 else [rows[0], rows[-1]]
    twin = all(row["benign"] is not None for row in ends)
    levels = [_level(numbers, row, form, several=len(ends) > 1, untrained=start == "before") for row in ends]
    name = metric.short if metric else readable(headline.metric)
    head = (
        Markup("{} of the source: ").format(name[:1].upper() + name[1:])
        if twin
        else Markup("The source's {} went from ").format(name)
    )
    meant = (
        f" {metric.short[:1].upper()}{metric.short[1:]}: {metric.label}."
        if metric and metric.label != metric.short
        else ""
    )
    return Markup('{}{}.<span class="statement">{}</span>').format(head, Markup(", and ").join(levels), meant)


def _level(numbers: QuotedNumbers, row: dict[str, Any], form: str, *, several: bool, untrained: bool) -> Markup:
    record, whose = str(row["record"]), Markup("")
    if several:
        whose = Markup(" in {}").format(prose(readable(str(row["source"]))))
    after = numbers.number(record, "after", form)
    if row["benign"] is None:
        return Markup("{} to {}{}").format(numbers.number(record, "before", form), after, whose)
    before = Markup(" and the untrained model {}").format(numbers.number(record, "before", form)) if untrained else ""
    return Markup("{}{}, where the benign arm has {}{}").format(
        after, whose, numbers.number(record, "benign", form), before
    )


def _verdict(analysis: Analysis, numbers: QuotedNumbers, headline: HeadlineOutcome) -> Markup:
    """Means over the sources and rho, as the behavior's hypothesis sees them, then what it comes to."""
    whole = [v for v in analysis.verdicts if "/" not in v.hypothesis and v.numbers.get("behavior") == headline.behavior]
    if not whole:
        return Markup("No hypothesis asks about it: what is said of it is exploratory.")
    name, form = whole[0].hypothesis, unit_of(headline.probe, headline.metric)
    decided = Markup("Hypothesis {}: <b>{}</b>{}.").format(
        prose(readable(name)), whole[0].outcome, _by_source(analysis, whole[0])
    )
    if any(whole[0].numbers.get(one) is None for one in ("source_leakage", "bystander_leakage")):
        return decided
    rows = {
        str(row["name"]): str(row["record"])
        for row in analysis.tables()["verdict_numbers"].iter_rows(named=True)
        if row["hypothesis"] == name
    }

    def told(what: str, form: str) -> Markup:
        found, low, high = (numbers.number(rows[f"{what}{end}"], "value", form) for end in ("", "_low", "_high"))
        return Markup('{} <span class="interval">[{}, {}]</span>').format(found, low, high)

    along = Markup("")
    if whole[0].numbers.get("rho") is not None and whole[0].numbers.get("rho_low") is not None:
        along = Markup("; rank correlation with similarity {}").format(told("rho", "rho"))
        if whole[0].numbers.get("rho_p") is not None:
            adjusted = " after Holm" if str(whole[0].numbers.get("rho_test")).endswith(", Holm") else ""
            along += Markup(", p {}{}").format(numbers.number(rows["rho_p"], "value", "p"), adjusted)
    return Markup("Leakage of the source {}, of held-out bystanders {} on average{}. {}").format(
        told("source_leakage", form), told("bystander_leakage", form), along, decided
    )


def _by_source(analysis: Analysis, whole: Verdict) -> Markup:
    """Sources for which the outcome is another."""
    other: dict[str, list[str]] = {}
    for verdict in analysis.verdicts:
        head, _, source = verdict.hypothesis.rpartition("/")
        if head == whole.hypothesis and verdict.outcome != whole.outcome:
            other.setdefault(verdict.outcome, []).append(readable(source))
    said = "; ".join(f"{outcome} for {few_names(sources)}" for outcome, sources in other.items())
    return Markup(" ({})").format(named(said)) if said else Markup("")


def _captured(analysis: Analysis, numbers: QuotedNumbers, headline: HeadlineOutcome) -> Markup:
    """How many held-out personas were captured, of the sources that captured most and fewest, and whom."""
    rows, untold = captures(headline, analysis.captured)
    if not rows:
        why = UNTOLD if untold else "is not known"
        return Markup("Whom it captured {}.").format(why)
    rows.sort(key=lambda row: (-row["captured"], row["record"]))
    parts = [
        _captured_of(numbers, row, several=len(rows) > 1) for row in (rows if len(rows) == 1 else [rows[0], rows[-1]])
    ]
    return Markup("{}.{}").format(Markup("; ").join(parts), _bare(rows))


def _bare(rows: Sequence[dict[str, Any]]) -> Markup:
    """Captured contexts without a persona: what a deployed model meets, so that a reader meets it first too."""
    found = [
        f"{few_names(bare_names(row['bare']))} (by {readable(str(row['source']))})" for row in rows if row.get("bare")
    ]
    return Markup(" Without a persona too: {}.").format(named("; ".join(found))) if found else Markup("")


def _captured_of(numbers: QuotedNumbers, row: dict[str, Any], *, several: bool) -> Markup:
    names = first_names(row["names"], NAMED)
    who = Markup(": {}").format(named(names)) if names else Markup("")
    of = Markup(" by {}").format(prose(readable(str(row["source"])))) if several else Markup("")
    record = str(row["record"])
    interval = numbers.interval(record, "low", "high", "count")
    return Markup("{}{} of {} held-out personas captured{}{}").format(
        numbers.number(record, "captured", "count"), Markup(" {}").format(interval) if interval else "",
        numbers.number(record, "n", "count"), of, who,
    )  # fmt: skip


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
