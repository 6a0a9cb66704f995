"""Tables of the page. Small ones stand in the HTML; long ones travel packed and are drawn by the script, page by page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from bystander.report.labels import Cell, format_number, outcome_name, readable, unit_of
from bystander.report.text import visible

LONG = 150  # rows above which a table is drawn by the script


@dataclass(frozen=True, slots=True)
class Column:
    """`form`: a format of `labels.format_number`, or "unit": that of the row's outcome. `hint` is the header's tooltip."""

    key: str
    label: str
    form: str = "text"
    hint: str = ""

    @property
    def numeric(self) -> bool:
        return self.form not in ("text", "name")


@dataclass(frozen=True, slots=True)
class CellView:
    """One cell as the template prints it."""

    text: str
    value: str
    column: Column
    form: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table with an id, the columns shown and its rows as plain cells, each with `record`."""

    id: str
    columns: tuple[Column, ...]
    rows: tuple[Mapping[str, Cell], ...]
    file: str = ""
    emphasis: str = ""  # name of a boolean column: rows where it holds are set in bold

    @property
    def long(self) -> bool:
        return len(self.rows) > LONG

    def cells(self, row: Mapping[str, Cell]) -> list[CellView]:
        """The row's cells in the order of the columns."""
        found: list[CellView] = []
        for column in self.columns:
            form = row_form(row) if column.form == "unit" else column.form
            value = row.get(column.key)
            text = readable(str(value)) if column.form == "name" and value is not None else format_number(value, form)
            found.append(CellView(visible(text), "" if value is None else visible(str(value)), column, form))
        return found

    def packed(self) -> dict[str, object]:
        """The table by columns, for the script. Numbers keep six digits: the run directory has all of them."""
        keys = dict.fromkeys(["record", *(column.key for column in self.columns)])
        units = any(column.form == "unit" for column in self.columns)
        return {
            "columns": [
                {"key": c.key, "label": c.label, "form": c.form, "hint": c.hint, "numeric": c.numeric}
                for c in self.columns
            ],
            "cells": {key: [_short(row.get(key)) for row in self.rows] for key in keys},
            **({"units": [row_form(row) for row in self.rows]} if units else {}),
            "emphasis": [bool(row.get(self.emphasis)) for row in self.rows] if self.emphasis else [],
        }


def _short(value: Cell) -> Cell:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    return visible(value) if isinstance(value, str) else value


def row_form(row: Mapping[str, Cell]) -> str:
    """The number format of a row's own outcome."""
    return unit_of(str(row.get("probe") or ""), str(row.get("metric") or ""))


def table(
    identifier: str,
    frame: pl.DataFrame | Iterable[Mapping[str, Cell]],
    columns: Sequence[Column],
    *,
    emphasis: str = "",
) -> Table:
    """A table of those columns that hold something at all; columns that are empty throughout are left out."""
    rows = tuple(frame.iter_rows(named=True)) if isinstance(frame, pl.DataFrame) else tuple(frame)
    kept = tuple(c for c in columns if any(row.get(c.key) not in (None, "") for row in rows))
    return Table(identifier, kept, rows, emphasis=emphasis, file=f"{identifier}.csv")


def outcome_column(frame: pl.DataFrame) -> pl.DataFrame:
    """Add `outcome`: the metric and its item set, in words."""
    return frame.with_columns(
        pl.struct(pl.col("probe").fill_null(""), pl.col("dataset").fill_null(""), pl.col("metric").fill_null(""))
        .map_elements(lambda row: outcome_name(row["probe"], row["dataset"], row["metric"]), pl.String)
        .alias("outcome")
    )
