"""Hypotheses as the page shows them: each criterion with what was observed and its threshold, then every other number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from bystander.analysis.results import Analysis
from bystander.core.columns import CellValue
from bystander.report.inputs import ReportInput
from bystander.report.labels import readable, unit_of

NumberRow = Mapping[str, CellValue]  # a row of the table `verdict_numbers`


@dataclass(frozen=True, slots=True)
class Criterion:
    """One thing that the verdict rests on. Each cell is a row of `verdict_numbers`, or None where there is none."""

    name: str
    observed: NumberRow
    low: NumberRow | None
    high: NumberRow | None
    threshold: NumberRow | None
    p: NumberRow | None


@dataclass(frozen=True, slots=True)
class HypothesisView:
    """A hypothesis; `outcome` is "open" where there is no verdict yet."""

    name: str
    title: str
    outcome: str
    statement: str
    reason: str = ""
    criteria: Sequence[Criterion] = ()
    others: Sequence[NumberRow] = ()
    unit: str = "plain"  # the format of its outcome's numbers

    @property
    def of_source(self) -> bool:
        """Whether it is a study's hypothesis judged for one of its sources by itself."""
        return "/" in self.name


def hypotheses(analysis: Analysis, inputs: ReportInput) -> list[HypothesisView]:
    """Those with a verdict first, then those that are still open."""
    numbers: dict[str, dict[str, NumberRow]] = {}
    for row in analysis.tables()["verdict_numbers"].iter_rows(named=True):
        numbers.setdefault(cast("str", row["hypothesis"]), {})[cast("str", row["name"])] = row
    decided = {verdict.hypothesis for verdict in analysis.verdicts}
    found: list[HypothesisView] = []
    for verdict in analysis.verdicts:
        own = numbers.get(verdict.hypothesis, {})
        criteria, others = _split(own)
        title, statement = _title_and_statement(verdict.hypothesis, inputs)
        found.append(
            HypothesisView(
                verdict.hypothesis,
                title,
                verdict.outcome,
                statement,
                verdict.reason,
                criteria,
                others,
                unit_of_outcome(own),
            )
        )
    return found + [
        HypothesisView(name, readable(name), "open", text)
        for name, text in inputs.hypotheses.items()
        if name not in decided
    ]


def _title_and_statement(name: str, inputs: ReportInput) -> tuple[str, str]:
    """Title and statement. `marker/villain` is the hypothesis `marker` judged for one source by itself."""
    whole, _, source = name.rpartition("/")
    if name not in inputs.hypotheses and whole in inputs.hypotheses:
        return f"{readable(whole)}, source {readable(source)}", f"The same for the source {readable(source)} by itself."
    return readable(name), inputs.hypotheses.get(name, "")


def _split(rows: Mapping[str, NumberRow]) -> tuple[list[Criterion], list[NumberRow]]:
    """A number `x` with a number `x_threshold` is a criterion; with it go `x_low`, `x_high` and `x_p`."""
    criteria: list[Criterion] = []
    used: set[str] = set()
    for name, row in rows.items():
        if f"{name}_threshold" not in rows:
            continue
        parts = {tail: rows.get(f"{name}_{tail}") for tail in ("low", "high", "threshold", "p")}
        criteria.append(Criterion(name, row, **parts))
        used |= {name, *(f"{name}_{tail}" for tail in parts)}
    return criteria, [row for name, row in rows.items() if name not in used]


def form_of(name: str, unit: str = "plain") -> str:
    """The format of a verdict's number: p-values and rank correlations by their name, the outcome's own estimates in its
    `unit`, thresholds as they were written, anything else with four digits."""
    if name == "p" or name.endswith("_p") or name.startswith("p_") or "_p_" in name:
        return "p"
    if name in ("rho", "leakage_ratio") or name.startswith(("rho_", "partial_")):
        return "rho"
    if name.startswith(("source_leakage", "source_change", "bystander_leakage", "bystander_change")):
        return unit
    return "plain"


def unit_of_outcome(numbers: Mapping[str, NumberRow]) -> str:
    """The format of the estimates of a verdict by the outcome that it names."""
    named = str((numbers.get("outcome") or {}).get("text") or "").split("/")
    return unit_of(named[0], named[2]) if len(named) == 3 else "plain"
