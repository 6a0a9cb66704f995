"""Every table of an analysis by name, with its columns. They are declared by the rows in `analysis/tables`.

Rules that hold for all of them:
- The row pooled over seeds (`seed` null) is always there; rows by seed are added where there are two or more.
- A number that could not be estimated is null, never 0 and never NaN; `status` and `reason` say why.
- `low` and `high` are the ends of a 95 % interval; leakage is in its metric's unit, signed in the behavior's direction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, get_args, get_type_hints

import polars as pl

from bystander.analysis.keys import RecordName
from bystander.analysis.tables.captured import CapturedRow
from bystander.analysis.tables.checks import CheckRow
from bystander.analysis.tables.dose import DoseRow, MatchedDoseRow
from bystander.analysis.tables.equivalence import EquivalenceRow
from bystander.analysis.tables.evolution import EvolutionRow, QuintileRow
from bystander.analysis.tables.groups import CategoryRow, RoleRow
from bystander.analysis.tables.half_captured import CapturedOverSourcesRow
from bystander.analysis.tables.leakage import LeakageRow
from bystander.analysis.tables.leakage_ratio import LeakageRatioRow
from bystander.analysis.tables.phase import PhaseRow
from bystander.analysis.tables.pooled import PooledRow
from bystander.analysis.tables.power import PowerRow
from bystander.analysis.tables.similarity_correlation import SimilarityCorrelationRow
from bystander.analysis.tables.skill import AsymmetryRow, SkillRow
from bystander.analysis.tables.timing import DynamicsRow, TimingCorrelationRow
from bystander.core.columns import Schema, columns_of, meanings_of, schema_of
from bystander.core.records import Measurement, PersonaFacts, Similarity


@dataclass
class TableRows:
    """The rows of every table while an analysis is made. The names of the fields are those of the tables."""

    leakage: list[LeakageRow] = field(default_factory=list[LeakageRow])
    similarity_correlation: list[SimilarityCorrelationRow] = field(default_factory=list[SimilarityCorrelationRow])
    pooled: list[PooledRow] = field(default_factory=list[PooledRow])
    leakage_ratio: list[LeakageRatioRow] = field(default_factory=list[LeakageRatioRow])
    categories: list[CategoryRow] = field(default_factory=list[CategoryRow])
    roles: list[RoleRow] = field(default_factory=list[RoleRow])
    evolution: list[EvolutionRow] = field(default_factory=list[EvolutionRow])
    dynamics: list[DynamicsRow] = field(default_factory=list[DynamicsRow])
    timing_correlation: list[TimingCorrelationRow] = field(default_factory=list[TimingCorrelationRow])
    quintiles: list[QuintileRow] = field(default_factory=list[QuintileRow])
    power: list[PowerRow] = field(default_factory=list[PowerRow])
    phase: list[PhaseRow] = field(default_factory=list[PhaseRow])
    checks: list[CheckRow] = field(default_factory=list[CheckRow])
    captured: list[CapturedRow] = field(default_factory=list[CapturedRow])
    captured_over_sources: list[CapturedOverSourcesRow] = field(default_factory=list[CapturedOverSourcesRow])
    equivalence: list[EquivalenceRow] = field(default_factory=list[EquivalenceRow])
    dose: list[DoseRow] = field(default_factory=list[DoseRow])
    matched_dose: list[MatchedDoseRow] = field(default_factory=list[MatchedDoseRow])
    skill: list[SkillRow] = field(default_factory=list[SkillRow])
    asymmetry: list[AsymmetryRow] = field(default_factory=list[AsymmetryRow])


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictRow:
    """One row per hypothesis, and per source of it where there are several."""

    record: RecordName
    hypothesis: Annotated[str, "its name; with /source where it is about that source by itself"]
    outcome: Annotated[str, "confirmed, falsified or inconclusive"]
    reason: Annotated[str, "why"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictNumberRow:
    """One row per number that a verdict rests on."""

    record: RecordName
    hypothesis: Annotated[str, "the verdict's name"]
    name: Annotated[str, "what the number is"]
    value: Annotated[float | None, "the number"]
    text: Annotated[str | None, "what is not a number, such as the predictor's name"]


ROWS: dict[str, type] = {name: get_args(hint)[0] for name, hint in get_type_hints(TableRows).items()}
TABLES: dict[str, Schema] = {name: schema_of(row) for name, row in ROWS.items()}
EXPORTED: dict[str, type] = {
    "measurements": Measurement, "similarities": Similarity, "personas": PersonaFacts, **ROWS, "verdicts": VerdictRow,
    "verdict_numbers": VerdictNumberRow,
}  # fmt: skip


def meanings(table: str) -> dict[str, str]:
    """Column -> what it means, of a table of the analysis or of the records that it is made from."""
    return meanings_of(EXPORTED[table])


def empty(table: str) -> pl.DataFrame:
    """A table of the analysis without rows."""
    return pl.DataFrame(schema=TABLES[table])


def table_of(rows: Sequence[object], row: type) -> pl.DataFrame:
    """The table of these records of type `row`, as `tidy` gives it."""
    columns = {
        column.name: pl.Series(list(map(column.value, rows)), dtype=column.kind, strict=False)
        for column in columns_of(row)
    }
    return tidy(pl.DataFrame(columns), schema_of(row))


def tidy(rows: Sequence[Mapping[str, Any]] | pl.DataFrame, schema: Schema) -> pl.DataFrame:
    """`rows` in exactly the columns of `schema`: a missing column is null, and NaN or infinity becomes null."""
    frame = rows if isinstance(rows, pl.DataFrame) else pl.DataFrame(list(rows), schema=schema, strict=False)
    columns: list[pl.Expr] = []
    for name, kind in schema.items():
        column = pl.col(name).cast(kind) if name in frame.columns else pl.lit(None, dtype=kind)
        if kind == pl.Float64:
            column = pl.when(column.is_finite()).then(column)
        columns.append(column.alias(name))
    return frame.select(columns)
