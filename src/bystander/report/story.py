"""A study in at most eight lines for a terminal: what was asked and trained, what came out, how sure, and what to do next.

Which record is quoted is chosen here, no number is made here; the report shows the rest.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from bystander.analysis.results import Analysis
from bystander.core.errors import few_names
from bystander.core.records import Verdict
from bystander.report.headline import UNTOLD, HeadlineOutcome, captures, headline_outcomes
from bystander.report.inputs import ReportInput
from bystander.report.labels import format_number, in_words, metric_of, names_in, readable, unit_of, without_persona
from bystander.report.next_steps import claimed, next_steps
from bystander.report.text import visible

LINES = 8
# An estimate in a verdict's reason, with what follows it: the line above has it.
_ESTIMATE = re.compile(
    r"(?: leaked| changed)?(?: on average)?(?: by)? (?:is )?-?[\d.e+-]+ \[[^\]]*\](?:, p = [\d.e+-]+)?(?:, threshold [\d.e+-]+)?"
)
WIDTH = 118  # characters of a line at most: what a wide terminal shows in one
HEAD = 14  # of them for the line's first word
NAMED = 4  # personas named in a line
ENDS = ("", "_low", "_high", "_p", "_threshold")  # of the names of a claim's numbers
Four = tuple[float | None, float | None, float | None, float | None]
NONE: Four = (None, None, None, None)
SOURCES = 3  # sources named in a line; more are counted


@dataclass(frozen=True, slots=True)
class Told:
    """One claim of a study as a terminal tells it: an estimate with its interval, what was asked of it, and p."""

    value: float | None
    low: float | None
    high: float | None
    p: float | None
    threshold: float | None
    form: str
    least: str  # >= or > the threshold
    over: str = ""  # " over 107 held-out"
    span: str = ""  # what is shown where several sources have an estimate each, and nothing over them

    def __str__(self) -> str:
        if self.value is None:
            return self.span or "not measured"
        text = format_number(self.value, self.form)
        if self.low is not None and self.high is not None:
            text += f" [{format_number(self.low, self.form)}, {format_number(self.high, self.form)}]"
        text += self.over
        if self.threshold is not None:
            text += f" (asked: {self.least} {format_number(self.threshold, 'plain')})"
        if self.p is not None:
            shown = format_number(self.p, "p")
            text += f", p {shown}" if shown.startswith("<") else f", p = {shown}"
        return text


@dataclass(frozen=True, slots=True)
class Chapter:
    """One behavior: the records that are shown for it, and the verdict on its hypothesis where there is one."""

    headline: HeadlineOutcome
    verdict: Verdict | None
    ratios: Sequence[Mapping[str, Any]]
    own: Sequence[Mapping[str, Any]]  # the sources' rows of the leakage table

    @property
    def form(self) -> str:
        """The format of the outcome's numbers."""
        return unit_of(self.headline.probe, self.headline.metric)

    @property
    def sources(self) -> str:
        """The sources' names; their number where they are many."""
        names = [readable(str(row["source"])) for row in self.ratios]
        return ", ".join(names) if len(names) <= SOURCES else f"{len(names)} sources"

    def levels(self) -> str:
        """The outcome in the sources, untrained and trained; the ends of it where there are several."""
        metric = metric_of(self.headline.probe, self.headline.metric)
        what = metric.short if metric else readable(self.headline.metric)
        before, after = (self._range(column) for column in ("before", "after"))
        return f"{what} {before} untrained, {after} trained"

    def _range(self, column: str) -> str:
        values = sorted(row[column] for row in self.own if row[column] is not None)
        ends = [format_number(value, self.form) for value in (values[:1] + values[-1:] if values else [])]
        return " to ".join(dict.fromkeys(ends)) or "–"

    def claim(self, what: str, analysis: Analysis) -> Told:
        """The estimate of `what` (source, bystander or rho): the verdict's, or the record's where nothing was asked."""
        numbers = self.verdict.numbers if self.verdict else {}
        name = claimed(numbers, what)
        form = "rho" if what == "rho" else self.form
        least = ">=" if what == "source" else ">"
        if not name:
            return Told(*self._recorded(what, analysis), threshold=None, form=form, least=least, span=self._span(what))
        value, low, high, p, threshold = (_float(numbers.get(f"{name}{tail}")) for tail in ENDS)
        return Told(value, low, high, p, threshold=threshold, form=form, least=least)

    def _recorded(self, what: str, analysis: Analysis) -> Four:
        """Value, low, high and p of one source; of several only what was pooled over them."""
        if what == "rho":
            tables = (analysis.similarity_correlation, "p"), (analysis.pooled, "p_matrix")
            table, p = tables[len(self.ratios) > 1]
            rows = self.headline.predicted(table).to_dicts()
            if len(rows) != 1:
                return NONE
            return _four(rows[0], "rho", "low", "high", p if rows[0]["p_specific"] is None else "p_specific")
        names = f"{what}_leakage", f"{what}_low", f"{what}_high", f"{what}_p"
        return _four(self.ratios[0], *names) if len(self.ratios) == 1 else NONE

    def _span(self, what: str) -> str:
        values = sorted(row[f"{what}_leakage"] for row in self.ratios if row.get(f"{what}_leakage") is not None)
        if len(values) < 2:
            return ""
        return f"{format_number(values[0], self.form)} to {format_number(values[-1], self.form)} over {len(values)} sources"

    def reached(self, analysis: Analysis) -> str:
        """How many bystanders were captured and who, bare contexts first; else into whom it went furthest."""
        rows, untold = captures(self.headline, analysis.captured)
        if untold and not rows:
            return f"{UNTOLD}; {self._furthest(analysis)}"
        bare = [name for row in rows for name in without_persona(row["bare"])]
        named = [names_in(row["names"]) for row in rows]
        who = list(dict.fromkeys([*bare, *(name for names, _ in named for name in names)]))
        if not who:
            return f"nobody by more than half of the source's; {self._furthest(analysis)}"
        count, of = sum(row["captured"] for row in rows), sum(row["n"] for row in rows)
        told = few_names(who, NAMED, sum(uncounted for _, uncounted in named))
        return f"{count} of {of} captured, by more than half of the source's: {told}"

    def _furthest(self, analysis: Analysis) -> str:
        rows = self.headline.rows(analysis.leakage).filter(
            (pl.col("context") == "persona") & pl.col("role").is_in(["held-out", "mixed"]) & (pl.col("leakage") > 0)
        )
        most = rows.sort("leakage", "record", descending=[True, False]).head(1).to_dicts()
        if not most:
            return "none at all"
        return f"most in {readable(str(most[0]['persona']))}, {format_number(most[0]['leakage'], self.form)}"


def _float(cell: object) -> float | None:
    return float(cell) if isinstance(cell, float | int) else None


def _four(row: Mapping[str, Any], value: str, low: str, high: str, p: str) -> Four:
    return _float(row[value]), _float(row[low]), _float(row[high]), _float(row[p])


def story(analysis: Analysis, inputs: ReportInput, page: str, run: str) -> list[str]:
    """At most eight lines. `page`: where the report lies, "" for none; `run`: what commands call the run."""
    chapters = [_chapter(analysis, headline) for headline in headline_outcomes(analysis, inputs.picked_configs)]
    lines = [_line("Asked", inputs.question)] if inputs.question else []
    room = LINES - len(lines) - 1
    if len(chapters) == 1:
        lines += _one(analysis, inputs, chapters[0])
    else:
        each = 2 if 2 * len(chapters) <= room else 1
        shown = chapters if each * len(chapters) <= room else chapters[: room - 1]
        lines += [line for chapter in shown for line in _short(analysis, chapter)[:each]]
        if len(shown) < len(chapters):
            lines.append(_line("", f"and {len(chapters) - len(shown)} behaviors more: in the report"))
    return [*lines, _last(analysis, inputs, page, run)]


def _chapter(analysis: Analysis, headline: HeadlineOutcome) -> Chapter:
    outcome = "/".join((headline.probe, headline.dataset, headline.metric))
    asked = {"behavior": headline.behavior, "outcome": outcome, "arm": headline.arm}
    verdict = next(
        (v for v in analysis.verdicts if "/" not in v.hypothesis and asked.items() <= v.numbers.items()),
        None,
    )
    own = headline.rows(analysis.leakage).filter((pl.col("role") == "source") & (pl.col("context") == "persona"))
    ratios = headline.rows(analysis.leakage_ratio).to_dicts()
    return Chapter(headline, verdict, ratios, own.to_dicts())


def _one(analysis: Analysis, inputs: ReportInput, chapter: Chapter) -> list[str]:
    """A study of one behavior: a line each for training, source, bystanders, whom it reached, similarity and verdict."""
    many = sum(row["n"] for row in chapter.ratios)
    over = f" over {many} held-out" if len(chapter.ratios) == 1 else f" over {many} held-out pairs"
    bystanders = replace(chapter.claim("bystander", analysis), over=over)
    return [
        _line("Trained", _trained(inputs, chapter)),
        _line("Source", f"{chapter.levels()}: {chapter.claim('source', analysis)}"),
        _line("Bystanders", str(bystanders)),
        _line("Reached", chapter.reached(analysis)),
        _line("Similarity", f"rho {chapter.claim('rho', analysis)}"),
        _line("Verdict", _verdict(chapter)),
    ]


def _short(analysis: Analysis, chapter: Chapter) -> list[str]:
    """A behavior of several in two lines, the more important one first."""
    claims = [("source", "source"), ("bystanders", "bystander"), ("rho", "rho")]
    found = ", ".join(f"{word} {_bare(chapter.claim(what, analysis))}" for word, what in claims)
    outcome = chapter.verdict.outcome if chapter.verdict else "nothing was asked"
    return [
        _line(readable(chapter.headline.behavior).capitalize(), f"{outcome}: {found}"),
        _line("", f"{chapter.sources}: {chapter.levels()}; {chapter.reached(analysis)}"),
    ]


def _bare(claim: Told) -> str:
    """Value, threshold and p alone."""
    if claim.value is None:
        return str(claim)
    text = format_number(claim.value, claim.form)
    asked = "" if claim.threshold is None else f" of {format_number(claim.threshold, 'plain')} asked"
    shown = "" if claim.p is None else format_number(claim.p, "p")
    return text + asked + (f" (p {'' if shown.startswith('<') else '= '}{shown})" if shown else "")


def _trained(inputs: ReportInput, chapter: Chapter) -> str:
    """Rows, epochs, negatives, arm and model."""
    one = chapter.headline
    own = [t for t in inputs.trained if (t.behavior, t.arm, t.config) == (one.behavior, one.arm, one.config)]
    parts = [f"{chapter.sources} to {inputs.taught.get(one.behavior) or f'show {readable(one.behavior)}'}"]
    if own:
        rows, epochs = sorted({t.rows for t in own}), sorted({t.epochs for t in own})
        negatives = sorted({len(t.negatives) for t in own})
        seeds = max(len(t.seeds) for t in own)
        parts += [f"{_span(rows)} rows", f"{_span(epochs)} epochs", f"{_span(negatives)} negatives"]
        parts += [f"{seeds} seeds" if seeds > 1 else "1 seed"]
    parts += [f"{readable(one.arm)} arm"] if one.arm else []
    return ", ".join(parts) + (f"; model {inputs.model}" if inputs.model else "")


def _span(values: Sequence[int]) -> str:
    return " to ".join(dict.fromkeys(str(value) for value in (values[0], values[-1])))


def _verdict(chapter: Chapter) -> str:
    if chapter.verdict is None:
        return "none: no hypothesis was registered for it, so this is exploratory"
    why = in_words(chapter.verdict.reason)
    if len(why) > WIDTH - HEAD - len(chapter.verdict.outcome) - 2:
        why = _ESTIMATE.sub("", why)
    return f"{chapter.verdict.outcome}: {why}"


def _last(analysis: Analysis, inputs: ReportInput, page: str, run: str) -> str:
    """Where the report lies and what to do next: the one line that is never cut."""
    step = next_steps(analysis, inputs, run)[0]
    return f"{'Report':<{HEAD}}{page}; next: {step}" if page else f"{'Next':<{HEAD}}{step}"


def _line(head: str, text: str) -> str:
    """A line of at most WIDTH characters: what is longer ends after a clause that fits, with an ellipsis."""
    whole = f"{head:<{HEAD}}{visible(' '.join(text.split()))}"
    if len(whole) <= WIDTH:
        return whole
    cut = whole[: WIDTH - 2]
    ends = [cut.rfind(mark) for mark in (". ", "; ", ": ", ", ") if cut.rfind(mark) > WIDTH // 2]
    return cut[: max(ends) if ends else None].rstrip() + " …"
