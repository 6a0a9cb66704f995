"""Tables of the page. Small ones are in the HTML; long ones travel packed and are drawn by the script, page by page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import polars as pl

from bystander.analysis.tables.leakage_ratio import NOT_DEFINED
from bystander.core.columns import CellValue
from bystander.report.labels import format_number, outcome_name, readable, unit_of
from bystander.report.text import visible

LONG = 150  # rows above which a table is drawn by the script
# Number -> the flag that says it is none to be quoted, and what stands in its place. The record keeps the number.
INSTEAD: dict[str, tuple[str, str]] = {
    "half": ("half_beyond", "beyond the range seen"), "half_low": ("half_low_beyond", "beyond"),
    "half_high": ("half_high_beyond", "beyond"), "ratio": ("unmoved", NOT_DEFINED), "ratio_low": ("unmoved", ""),
    "ratio_high": ("unmoved", ""),
}  # fmt: skip


def instead(key: str, row: Mapping[str, object]) -> str | None:
    """What stands in place of that number of a row; None where the number itself may."""
    flag, words = INSTEAD.get(key, ("", ""))
    return words if flag and row.get(flag) else None


@dataclass(frozen=True, slots=True)
class Column:
    """`form`: a format of `labels.format_number`, or "unit": that of the row's outcome. `hint` is the header's tooltip.

    With `to` the column is an interval from the cell `key` to the cell `to`.
    """

    key: str
    label: str
    form: str = "text"
    hint: str = ""
    to: str = ""

    @property
    def numeric(self) -> bool:
        """Whether its cells are numbers, which carry a record."""
        return self.form not in ("text", "name")


class CellPart(NamedTuple):
    """A value of a cell. `quoted`: it is the record's; False: words stand in its place."""

    key: str
    text: str
    raw: str
    quoted: bool


@dataclass(frozen=True, slots=True)
class CellView:
    """One cell as the template prints it; an interval has two parts."""

    column: Column
    form: str
    parts: tuple[CellPart, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table with an id, the columns shown and its rows as plain cells, each with `record`."""

    id: str
    columns: tuple[Column, ...]
    rows: tuple[Mapping[str, CellValue], ...]
    file: str
    emphasis: str = ""  # name of a boolean column: rows where it holds are set in bold

    @property
    def long(self) -> bool:
        """Whether the script draws it."""
        return len(self.rows) > LONG

    def cells(self, row: Mapping[str, CellValue]) -> list[CellView]:
        """The row's cells in the order of the columns."""
        found: list[CellView] = []
        for column in self.columns:
            form = row_form(row) if column.form == "unit" else column.form
            keys = (column.key, column.to) if column.to else (column.key,)
            found.append(CellView(column, form, tuple(_part(key, row, form) for key in keys)))
        return found

    def packed(self) -> dict[str, object]:
        """The table by columns, for the script. QuotedNumbers keep nine digits: the run directory has all of them."""
        keys = dict.fromkeys(["record", *(key for c in self.columns for key in (c.key, c.to) if key)])
        units = any(column.form == "unit" for column in self.columns)
        return {
            "columns": [{"key": c.key, "form": c.form, "numeric": c.numeric, "to": c.to} for c in self.columns],
            "cells": {key: [_short(row.get(key)) for row in self.rows] for key in keys},
            "instead": {key: [instead(key, row) for row in self.rows] for key in keys if key in INSTEAD},
            "units": [row_form(row) for row in self.rows] if units else None,
            "emphasis": [bool(row.get(self.emphasis)) for row in self.rows] if self.emphasis else None,
        }


def _part(key: str, row: Mapping[str, CellValue], form: str) -> CellPart:
    words = instead(key, row)
    if words is not None:
        return CellPart(key, words, words, quoted=False)
    return CellPart(key, _text(row.get(key), form), _raw(row.get(key)), quoted=True)


def _text(value: CellValue, form: str) -> str:
    return visible(readable(str(value)) if form == "name" and value is not None else format_number(value, form))


def _raw(value: CellValue) -> str:
    return "" if value is None else visible(str(value))


def _short(value: CellValue) -> CellValue:
    if isinstance(value, float):
        return float(f"{value:.9g}")
    return visible(value) if isinstance(value, str) else value


def row_form(row: Mapping[str, CellValue]) -> str:
    """The number format of a row's own outcome."""
    return unit_of(str(row.get("probe") or ""), str(row.get("metric") or ""))


def table(
    identifier: str,
    frame: pl.DataFrame | Iterable[Mapping[str, CellValue]],
    columns: Sequence[Column],
    *,
    emphasis: str = "",
    constant: Sequence[str] = (),
) -> Table:
    """A table of those columns that hold something at all. Of the columns named in `constant`, those that are the same
    in all of several rows are left out: they say nothing there."""
    rows = tuple(frame.iter_rows(named=True)) if isinstance(frame, pl.DataFrame) else tuple(frame)

    def informative(column: Column) -> bool:
        values = {row.get(column.key) for row in rows} - {None, ""}
        return bool(values) and not (column.key in constant and len(values) == 1)

    return Table(identifier, tuple(filter(informative, columns)), rows, f"{identifier}.csv", emphasis)


def outcome_column(frame: pl.DataFrame) -> pl.DataFrame:
    """Add `outcome`: the metric and its item set, in words."""
    return frame.with_columns(
        pl.struct("probe", "dataset", "metric")
        .map_elements(lambda row: outcome_name(row["probe"], row["dataset"], row["metric"]), pl.String)
        .alias("outcome")
    )
