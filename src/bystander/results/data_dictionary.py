"""The data dictionary of an export: every table's columns with type and meaning, as the records that fill them say."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from bystander.analysis.schemas import EXPORTED, meanings


def dictionary(tables: Mapping[str, pl.DataFrame]) -> str:
    """The dictionary as Markdown. Raises KeyError for a table that no record declares, or that lacks a column."""
    lines = [
        "# Data dictionary",
        "",
        "Fractions are in [0, 1], judge scores 0-100, log-probabilities in nats. Empty: null.",
    ]
    for name, frame in tables.items():
        about = " ".join((EXPORTED[name].__doc__ or "").split("\n\n")[0].split())
        lines += ["", f"## {name}", "", about, "", "| column | type | meaning |", "|---|---|---|"]
        lines += [f"| {column} | {frame.schema[column]} | {meaning} |" for column, meaning in meanings(name).items()]
    return "\n".join(lines) + "\n"
