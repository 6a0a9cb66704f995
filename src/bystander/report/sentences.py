"""The verdict in four sentences per behavior: who was captured, what training did to the source, to the bystanders, and
along similarity.

Each is put together from records; which record is quoted is chosen here, no number is made here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import polars as pl
from markupsafe import Markup

from bystander.analysis.grid import BENIGN_ARM
from bystander.analysis.results import Analysis
from bystander.core.errors import few_names
from bystander.core.metrics import Metric
from bystander.report.headline import UNTOLD, HeadlineOutcome, captures
from bystander.report.labels import metric_of, names_in, readable, unit_of, without_persona
from bystander.report.numbers import QuotedNumbers, named, prose
from bystander.report.tables import instead

NAMED = 8  # captured contexts named in a sentence; all of them are in the table
LEVEL = 0.05  # p below which a sentence says that something follows; the p itself is beside it


@dataclass(frozen=True, slots=True)
class BehaviorVerdict:
    """The sentences on one behavior, and one on each arm beside its own."""

    behavior: str
    arm: str
    sentences: tuple[Markup, ...]


def verdict(analysis: Analysis, numbers: QuotedNumbers, headline: HeadlineOutcome) -> BehaviorVerdict:
    """Who was captured, then the three sentences of that headline, and one on each other arm; fewer where the records are
    not there."""
    found = (
        _captured(analysis, numbers, headline),
        _source(analysis, numbers, headline),
        _bystanders(analysis, numbers, headline),
        _similarity(analysis, numbers, headline),
        *_other_arms(analysis, numbers, headline),
    )
    return BehaviorVerdict(headline.behavior, headline.arm, tuple(sentence for sentence in found if sentence))


def _what(headline: HeadlineOutcome) -> tuple[str, int]:
    """The metric in words, and the way in which the behavior pushes it: 1 up, -1 down, 0 nobody declared it."""
    metric: Metric | None = metric_of(headline.probe, headline.metric)
    return (readable(headline.metric), 0) if metric is None else (metric.short, metric.direction)


def _verb(direction: int, leakage: float) -> str:
    """What the metric itself did, where leakage counts the behavior's direction as positive."""
    if not direction:
        return "changed"
    return "rose" if direction * leakage > 0 else "fell"


def _ends(frame: pl.DataFrame, column: str) -> list[dict[str, object]]:
    """The rows with the smallest and largest value; one where there is one."""
    rows = frame.filter(pl.col(column).is_not_null()).sort(column, "record").to_dicts()
    return rows if len(rows) < 2 else [rows[0], rows[-1]]


def _captured(analysis: Analysis, numbers: QuotedNumbers, headline: HeadlineOutcome) -> Markup | None:
    """Names first, bare contexts before personas."""
    known, untold = captures(headline, analysis.captured)
    lacking = Markup(" Of {} it {}.").format(named(few_names([readable(source) for source in untold])), UNTOLD)
    if not known:
        return Markup("Whom it captured: {}").format(lacking.strip()) if untold else None
    return Markup("Captured, with more than half of the source's leakage: {}.{}{}").format(
        Markup("; ").join(_captured_of(numbers, row) for row in known), lacking if untold else "",
        _half(analysis, numbers, headline),
    )  # fmt: skip


def _captured_of(numbers: QuotedNumbers, row: dict[str, Any]) -> Markup:
    record = str(row["record"])
    names, uncounted = names_in(row["names"])
    who = few_names([*without_persona(row["bare"]), *names], NAMED, uncounted)
    count = Markup("{} of {}").format(numbers.number(record, "captured", "count"), numbers.number(record, "n", "count"))
    if row["low"] is not None:
        count += Markup(" ") + numbers.interval(record, "low", "high", "count")
    tested = Markup(", {}").format(prose(str(row["groups"]))) if row["dip_p"] is not None else Markup("")
    return Markup("{} ({} bystanders of {}{})").format(
        named(who or "nobody"), count, prose(readable(str(row["source"] or "the source"))), tested
    )


def _half(analysis: Analysis, numbers: QuotedNumbers, headline: HeadlineOutcome) -> Markup:
    """What tells them from the others, and the similarity at which half are."""
    found = headline.predicted(analysis.captured_over_sources).filter(pl.col("half").is_not_null()).to_dicts()
    single = headline.predicted(analysis.similarity_correlation).filter(pl.col("auc").is_not_null()).to_dicts()
    parts: list[Markup] = []
    if len(single) == 1:
        record = str(single[0]["record"])
        parts.append(Markup("similarity tells them from the others with an area of {} {}, p {} among all personas").format(
            numbers.number(record, "auc", "rho"), numbers.interval(record, "auc_low", "auc_high", "rho"),
            numbers.number(record, "auc_p_specific", "p"),
        ))  # fmt: skip
    if found:
        parts.append(_at(numbers, found[0]))
    if not parts:
        return Markup("")
    text = Markup("; ").join(parts)
    return Markup(" ") + text[:1].upper() + text[1:] + Markup(".")


def _at(numbers: QuotedNumbers, row: Mapping[str, Any]) -> Markup:
    """Where half are captured; in words where the curve reaches it beyond the similarities that were seen."""
    if (words := instead("half", row)) is not None:
        return Markup("the similarity at which half are captured lies {}").format(words)
    half, low, high = (
        Markup("{}").format(instead(key, row) or numbers.number(str(row["record"]), key, "rho"))
        for key in ("half", "half_low", "half_high")
    )
    return Markup('half are captured at a similarity of {} <span class="interval">[{}, {}]</span>').format(
        half, low, high
    )


def _source(analysis: Analysis, numbers: QuotedNumbers, headline: HeadlineOutcome) -> Markup | None:
    rows = headline.rows(analysis.leakage_ratio)
    ends = _ends(rows, "source_leakage")
    if not ends:
        return None
    what, direction = _what(headline)
    form = unit_of(headline.probe, headline.metric)
    parts: dict[str, list[Markup]] = {}
    for row in ends:
        leakage, record = cast("float", row["source_leakage"]), str(row["record"])
        found = numbers.number(record, "source_leakage", form)
        interval = numbers.interval(record, "source_low", "source_high", form)
        whose = prose(readable(str(row["source"] or "the source")))
        if leakage < 0 and direction:
            words = f"{_verb(direction, leakage)} against the behavior, a leakage of"
        else:
            words = f"{_verb(direction, leakage)} by" if leakage else "did not change:"
        parts.setdefault(words, []).append(Markup("{} {} in {}").format(found, interval, whose))
    clauses = [Markup("{} {}").format(words, Markup(" to ").join(each)) for words, each in parts.items()]
    against = {str(row["against"]) for row in ends}
    beyond = " beyond the benign arm" if against == {BENIGN_ARM} else " from the untrained model"
    return Markup("{}: the source's {} {}{}.").format(_hold(ends), what, Markup(" and ").join(clauses), beyond)


def _hold(ends: Sequence[Mapping[str, object]]) -> str:
    """Whether the sources took the behavior up, as far as p and intervals tell."""
    if all(isinstance(row["source_p"], float) and row["source_p"] < LEVEL for row in ends):
        return "Training took hold"
    if all(isinstance(row["source_high"], float) and row["source_high"] < 0 for row in ends):
        return "Training moved the source the other way"
    return "Training did not clearly take hold"


def _bystanders(analysis: Analysis, numbers: QuotedNumbers, headline: HeadlineOutcome) -> Markup | None:
    rows = headline.rows(analysis.leakage_ratio)
    ends = _ends(rows, "bystander_leakage")
    if not ends:
        return None
    form = unit_of(headline.probe, headline.metric)
    parts = [
        Markup("{}{}").format(
            numbers.number(str(r["record"]), "bystander_leakage", form), _share(numbers, r, several=len(ends) > 1)
        )
        for r in ends
    ]
    most = rows.filter(pl.col("max_leakage").is_not_null()).sort("max_leakage", descending=True).head(1).to_dicts()
    furthest = Markup("")
    if most:
        reached = most[0]["max_leakage"] > 0
        words = (
            Markup("; it went furthest into {}, by {}")
            if reached
            else Markup("; it reached none (the most, in {}, is {})")
        )
        furthest = words.format(
            prose(readable(str(most[0]["max_persona"]))), numbers.number(most[0]["record"], "max_leakage", form)
        )
    joined = Markup(" to ").join(parts)
    if {str(row["against"]) for row in ends} == {BENIGN_ARM}:
        return Markup("Held-out bystanders leaked on average by {}{}.").format(joined, furthest)
    unclaimed = "; without a benign arm this is change, not leakage, and it confirms nothing"
    return Markup("Held-out bystanders changed on average by {}{}{}.").format(joined, furthest, unclaimed)


def _share(numbers: QuotedNumbers, row: Mapping[str, object], *, several: bool) -> Markup:
    """Beside the change itself: whose it is where there are several, that it is against the behavior, and the leakage
    ratio, where the source got anything that it could be a share of; that there is none where it did not move."""
    whose = Markup("source {}").format(prose(readable(str(row["source"])))) if several else Markup("")
    against = Markup("against the behavior") if cast("float", row["bystander_leakage"]) < 0 else Markup("")
    of = Markup("")
    if (words := instead("ratio", row)) is not None:
        of = Markup("leakage ratio {}").format(words)
    elif row["ratio"] is not None and cast("float", row["source_leakage"]) > 0:
        of = Markup("{} of what the source got").format(numbers.number(str(row["record"]), "ratio", "rho"))
    said = Markup(", ").join(part for part in (whose, against, of) if part)
    return Markup(" ({})").format(said) if said else Markup("")


def _similarity(analysis: Analysis, numbers: QuotedNumbers, headline: HeadlineOutcome) -> Markup | None:
    pooled = headline.predicted(analysis.pooled).filter(pl.col("rho").is_not_null()).to_dicts()
    single = headline.predicted(analysis.similarity_correlation).filter(pl.col("rho").is_not_null())
    if single.height > 1 and pooled:
        row = pooled[0]
        p = "p_specific" if row["p_specific"] is not None else "p_matrix"
        scope = Markup(" over {} sources").format(numbers.number(row["record"], "n_sources", "count"))
        ends = _ends(single, "rho")
        extremes = Markup(" (from {} in {} to {} in {})").format(
            numbers.number(str(ends[0]["record"]), "rho", "rho"), prose(readable(str(ends[0]["source"]))),
            numbers.number(str(ends[-1]["record"]), "rho", "rho"), prose(readable(str(ends[-1]["source"]))),
        )  # fmt: skip
    elif single.height:
        row = single.to_dicts()[0]
        p = "p_specific" if row["p_specific"] is not None else "p"
        scope, extremes = Markup(" over {} bystanders").format(numbers.number(row["record"], "n", "count")), Markup("")
    else:
        return None
    baseline = single.filter(pl.col("flagged").fill_null(False)).height > 0
    opening = "The change goes with where personas stood before" if baseline else _direction(row, p)
    least = (
        Markup(" (the least that is attainable: {})").format(
            numbers.number(row["record"], "p_specific_attainable", "p")
        )
        if p == "p_specific"
        else Markup(" (personas permuted; whether it is this source's similarity was not tested)")
    )
    return Markup("{}: rho {} {}{}, p {}{}{}.").format(
        opening,
        numbers.number(row["record"], "rho", "rho"),
        numbers.interval(row["record"], "low", "high", "rho"),
        scope,
        numbers.number(row["record"], p, "p"),
        least,
        extremes,
    )


def _other_arms(analysis: Analysis, numbers: QuotedNumbers, headline: HeadlineOutcome) -> list[Markup]:
    """What the bystanders got in each other arm, and along similarity: the claim is about the difference."""
    found: list[Markup] = []
    same = analysis.leakage_ratio.filter(pl.col("behavior") == headline.behavior)
    for arm in sorted(set(same["arm"].to_list()) - {headline.arm}):
        other = replace(headline, arm=arm)
        form = unit_of(headline.probe, headline.metric)
        ends = _ends(other.rows(analysis.leakage_ratio), "bystander_leakage")
        if not ends:
            continue
        parts = [
            Markup("{}{}").format(
                numbers.number(str(row["record"]), "bystander_leakage", form),
                " against the behavior" if cast("float", row["bystander_leakage"]) < 0 else "",
            )
            for row in ends
        ]
        pooled = other.predicted(analysis.pooled).filter(pl.col("rho").is_not_null()).to_dicts()
        single = other.predicted(analysis.similarity_correlation).filter(pl.col("rho").is_not_null()).to_dicts()
        row = next(iter(pooled if len(single) > 1 and pooled else single), None)
        along = (
            Markup(", with rho {} {}").format(
                numbers.number(row["record"], "rho", "rho"), numbers.interval(row["record"], "low", "high", "rho")
            )
            if row
            else ""
        )
        found.append(
            Markup(
                "All this is of the {} arm; in the {} arm bystanders changed from the untrained model, on average, by {}{}."
            ).format(prose(readable(headline.arm)), prose(readable(arm)), Markup(" to ").join(parts), along)
        )
    return found


def _direction(row: Mapping[str, float | None], p: str) -> str:
    """What may be said of the sign of rho: only where p is below the level and the interval, if any, leaves out zero."""
    rho, low, high = row["rho"] or 0.0, row["low"], row["high"]
    clear = low is None or high is None or low > 0 or high < 0
    if row[p] is None or (row[p] or 0.0) >= LEVEL or not clear:
        return "Leakage does not measurably follow similarity to the source"
    return "Leakage follows similarity to the source" if rho > 0 else "Leakage runs against similarity to the source"
