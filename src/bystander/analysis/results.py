"""`Analysis`: everything that the statistics found, as tidy tables and verdicts. The report adds nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import cast

import polars as pl

from bystander.analysis.schemas import TABLES, VerdictNumberRow, VerdictRow, empty, table_of
from bystander.core.columns import CellValue
from bystander.core.errors import DataError
from bystander.core.records import Verdict, as_dict

FORMAT = 3  # of analysis.json; raised when a reader of the old form would misread the new one
ADVICE = "`bystander report RUN` makes it anew"


def _table(name: str) -> pl.DataFrame:
    return field(default_factory=lambda: empty(name))


@dataclass(frozen=True, eq=False)
class Analysis:
    """Tidy tables (columns: `analysis.schemas`), verdicts, and what the analysis did that a reader must know (`notes`).

    `settings` holds what decides the numbers (seed, permutations, resamples, limits, primary predictor), JSON-able.
    """

    leakage: pl.DataFrame = _table("leakage")
    similarity_correlation: pl.DataFrame = _table("similarity_correlation")
    pooled: pl.DataFrame = _table("pooled")
    leakage_ratio: pl.DataFrame = _table("leakage_ratio")
    categories: pl.DataFrame = _table("categories")
    roles: pl.DataFrame = _table("roles")
    evolution: pl.DataFrame = _table("evolution")
    dynamics: pl.DataFrame = _table("dynamics")
    timing_correlation: pl.DataFrame = _table("timing_correlation")
    quintiles: pl.DataFrame = _table("quintiles")
    power: pl.DataFrame = _table("power")
    phase: pl.DataFrame = _table("phase")
    checks: pl.DataFrame = _table("checks")
    captured: pl.DataFrame = _table("captured")
    captured_over_sources: pl.DataFrame = _table("captured_over_sources")
    equivalence: pl.DataFrame = _table("equivalence")
    dose: pl.DataFrame = _table("dose")
    matched_dose: pl.DataFrame = _table("matched_dose")
    skill: pl.DataFrame = _table("skill")
    asymmetry: pl.DataFrame = _table("asymmetry")
    verdicts: tuple[Verdict, ...] = ()
    notes: tuple[str, ...] = ()
    settings: Mapping[str, CellValue] = field(default_factory=dict[str, CellValue])

    def tables(self) -> dict[str, pl.DataFrame]:
        """Every table by name, the verdicts and their numbers among them; what `export` writes."""
        named = {name: cast("pl.DataFrame", getattr(self, name)) for name in TABLES}
        return {**named, "verdicts": self._verdict_table(), "verdict_numbers": self._verdict_numbers()}

    def value(self, record: str, column: str) -> CellValue:
        """The number that a report quotes: the cell of that record and column. Raises DataError where there is none."""
        found = self._index.get(record)
        if found is None or column not in found:
            what = "record" if found is None else "column"
            raise DataError(f"no such {what} in the analysis: {record!r}, column {column!r}")
        return found[column]

    @cached_property
    def _index(self) -> dict[str, dict[str, CellValue]]:
        return {row["record"]: row for table in self.tables().values() for row in table.iter_rows(named=True)}

    def _verdict_table(self) -> pl.DataFrame:
        rows = [
            VerdictRow(record=f"verdict/{v.hypothesis}", hypothesis=v.hypothesis, outcome=v.outcome, reason=v.reason)
            for v in self.verdicts
        ]
        return table_of(rows, VerdictRow)

    def _verdict_numbers(self) -> pl.DataFrame:
        rows = [
            VerdictNumberRow(
                record=f"verdict/{verdict.hypothesis}/{name}", hypothesis=verdict.hypothesis, name=name,
                value=None if isinstance(value, str) or value is None else float(value),
                text=value if isinstance(value, str) else None,
            )
            for verdict in self.verdicts
            for name, value in verdict.numbers.items()
        ]  # fmt: skip
        return table_of(rows, VerdictNumberRow)

    def to_json(self) -> str:
        """The text of analysis.json. Floats keep all their digits, so that it reads back to the same bits."""
        whole = {
            "format": FORMAT,
            "settings": dict(self.settings),
            "notes": list(self.notes),
            "verdicts": [{**as_dict(verdict), "numbers": _finite(verdict.numbers)} for verdict in self.verdicts],
            "tables": {name: getattr(self, name).to_dict(as_series=False) for name in TABLES},
        }
        return json.dumps(whole, ensure_ascii=False, allow_nan=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str, where: Path | str = "analysis.json") -> Analysis:
        """Read what `to_json` wrote. Raises DataError on anything else; `where` names the file in the message."""
        try:
            whole = json.loads(text)
            if whole["format"] != FORMAT:
                raise DataError(f"{where}: format {whole['format']!r}, this version reads {FORMAT}; {ADVICE}")
            tables = {name: pl.DataFrame(whole["tables"][name], schema=schema) for name, schema in TABLES.items()}
            verdicts = tuple(Verdict(**verdict) for verdict in whole["verdicts"])
            return cls(**tables, verdicts=verdicts, notes=tuple(whole["notes"]), settings=whole["settings"])
        except (KeyError, TypeError, ValueError, pl.exceptions.PolarsError) as error:
            raise DataError(f"{where}: not an analysis of bystander ({error}); {ADVICE}") from error


def _finite(numbers: Mapping[str, CellValue]) -> dict[str, CellValue]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in numbers.items()}
