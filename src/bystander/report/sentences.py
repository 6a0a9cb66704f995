"""The verdict in three sentences per behavior: what training did to the source, to the bystanders, and along similarity.

Each is put together from records; which record is quoted is chosen here, no number is made here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import polars as pl
from markupsafe import Markup

from bystander.analysis.results import Analysis
from bystander.core.metrics import Metric
from bystander.report.headline import HeadlineOutcome
from bystander.report.labels import metric_of, readable, unit_of
from bystander.report.numbers import QuotedNumbers, prose

LEVEL = 0.05  # p below which a sentence says that something follows; the p itself is beside it


@dataclass(frozen=True, slots=True)
class BehaviorVerdict:
    """Three sentences on one behavior, and one on each arm beside its own."""

    behavior: str
    arm: str
    sentences: tuple[Markup, ...]


def verdict(analysis: Analysis, numbers: QuotedNumbers, headline: HeadlineOutcome) -> BehaviorVerdict:
    """The three sentences of that headline, and one on each other arm; fewer where the records are not there."""
    found = (
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
    return Markup("{}: the source's {} {}.").format(_hold(ends), what, Markup(" and ").join(clauses))


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
            numbers.number(str(r["record"]), "bystander_leakage", form), _share(numbers, r, named=len(ends) > 1)
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
    return Markup("Held-out bystanders changed on average by {}{}.").format(joined, furthest)


def _share(numbers: QuotedNumbers, row: Mapping[str, object], *, named: bool) -> Markup:
    """Beside the change itself: whose it is where there are several, that it is against the behavior, and the leakage
    ratio, where the source got anything that it could be a share of."""
    whose = Markup("source {}").format(prose(readable(str(row["source"])))) if named else Markup("")
    against = Markup("against the behavior") if cast("float", row["bystander_leakage"]) < 0 else Markup("")
    of = Markup("")
    if row["ratio"] is not None and cast("float", row["source_leakage"]) > 0:
        of = Markup("{} of what the source got").format(numbers.number(str(row["record"]), "ratio", "rho"))
    words = Markup(", ").join(part for part in (whose, against, of) if part)
    return Markup(" ({})").format(words) if words else Markup("")


def _similarity(analysis: Analysis, numbers: QuotedNumbers, headline: HeadlineOutcome) -> Markup | None:
    pooled = headline.predicted(analysis.pooled).filter(pl.col("rho").is_not_null()).to_dicts()
    single = headline.predicted(analysis.similarity_correlation).filter(pl.col("rho").is_not_null())
    if single.height > 1 and pooled:
        row, p = pooled[0], "p_matrix"
        scope = Markup(" over {} sources").format(numbers.number(row["record"], "n_sources", "count"))
        ends = _ends(single, "rho")
        extremes = Markup(" (from {} in {} to {} in {})").format(
            numbers.number(str(ends[0]["record"]), "rho", "rho"), prose(readable(str(ends[0]["source"]))),
            numbers.number(str(ends[-1]["record"]), "rho", "rho"), prose(readable(str(ends[-1]["source"]))),
        )  # fmt: skip
    elif single.height:
        row, p = single.to_dicts()[0], "p"
        scope, extremes = Markup(" over {} bystanders").format(numbers.number(row["record"], "n", "count")), Markup("")
    else:
        return None
    opening = _direction(row, p)
    return Markup("{}: ρ {} {}{}, permutation p {}{}.").format(
        opening,
        numbers.number(row["record"], "rho", "rho"),
        numbers.interval(row["record"], "low", "high", "rho"),
        scope,
        numbers.number(row["record"], p, "p"),
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
            Markup(", with ρ {} {}").format(
                numbers.number(row["record"], "rho", "rho"), numbers.interval(row["record"], "low", "high", "rho")
            )
            if row
            else ""
        )
        found.append(
            Markup("All this is of the {} arm; in the {} arm bystanders changed on average by {}{}.").format(
                prose(readable(headline.arm)), prose(readable(arm)), Markup(" to ").join(parts), along
            )
        )
    return found


def _direction(row: Mapping[str, float | None], p: str) -> str:
    """What may be said of the sign of rho: only where p is below the level and the interval, if any, leaves out zero."""
    rho, low, high = row["rho"] or 0.0, row["low"], row["high"]
    clear = low is None or high is None or low > 0 or high < 0
    if row[p] is None or (row[p] or 0.0) >= LEVEL or not clear:
        return "Leakage does not measurably follow similarity to the source"
    return "Leakage follows similarity to the source" if rho > 0 else "Leakage runs against similarity to the source"
