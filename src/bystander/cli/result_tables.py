"""Results as a terminal shows them: short tables and lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl
from rich.table import Table

from bystander.analysis import Analysis


def headline_table(analysis: Analysis) -> Table:
    """The short table at the end of a run: per training and metric what the source and the bystanders got, and the
    gradient at the study's layer."""
    controls = {_key(row) for row in _pooled(analysis.checks) if row["control"]}
    rows = [row for row in _pooled(analysis.leakage_ratio) if _key(row) not in controls]
    table = Table(box=None, header_style="bold", pad_edge=False)
    several = [name for name in ("behavior", "arm", "config", "dataset") if len({row[name] for row in rows}) > 1]
    for name in ("source", *several, "metric"):
        table.add_column(name, no_wrap=True)
    widths = {"before": 7, "after": 7, "held-out": 8, "rho": 5, "95 % interval": 13, "p": 6, "n": 3}
    for name, width in widths.items():  # where the screen is narrow the names are cut, never a number
        table.add_column(name, justify="right", no_wrap=True, min_width=width)
    own = {_key(row): row for row in _pooled(analysis.leakage) if row["role"] == "source"}
    gradients = _pooled(analysis.similarity_correlation)
    claimed = {(row["method"], row["layer"]) for row in gradients if row["preregistered"]}
    ranks = {_key(row): row for row in gradients if (row["method"], row["layer"]) in claimed}
    for row in rows:
        source, rank = own.get(_key(row)), ranks.get(_key(row), dict[str, Any]())
        table.add_row(
            row["source"],
            *(row[name] for name in several),
            row["metric"],
            number(source["before"] if source else None),
            number(source["after"] if source else None),
            number(row["bystander_leakage"]),
            number(rank.get("rho"), 2),
            _interval(rank) if rank else "–",
            number(rank.get("p"), 4),
            str(rank.get("n", "–")),
        )
    return table


def control_lines(analysis: Analysis) -> list[str]:
    """What must not move, over all personas: a line per training and control metric."""
    rows = _pooled(analysis.checks)
    several = len({(row["source"], row["behavior"], row["arm"], row["config"]) for row in rows if row["source"]}) > 1
    lines: list[str] = []
    for row in rows:
        if row["control"] and row["after"] is not None:
            whose = f", {row['source']} {row['behavior']} {row['arm']} {row['config']}".rstrip() if several else ""
            change = f"{row['change']:+.3f} [{number(row['low'], 2)}, {number(row['high'], 2)}]"
            lines.append(
                f"control {row['dataset']} {row['metric']}{whose}: {number(row['before'])} before, {number(row['after'])} "
                f"after, {change} over all personas"
            )
    return lines


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("behavior", "source", "arm", "config", "probe", "dataset", "metric"))


def table_of_gradients(analysis: Analysis) -> Table:
    """Every gradient of an analysis."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("source", no_wrap=True)
    table.add_column("predictor", no_wrap=True)
    for name in ("layer", "n", "rho", "95 % interval", "p", "within", "p within"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in analysis.similarity_correlation.iter_rows(named=True):
        table.add_row(
            row["source"], row["method"], _layer(row), str(row["n"]), number(row["rho"]), _interval(row),
            number(row["p"], 4), number(row["rho_within_category"]), number(row["p_within_category"], 4),
        )  # fmt: skip
    for row in analysis.pooled.iter_rows(named=True):
        head = row["method"], _layer(row), str(row["n"])
        table.add_row("[bold]all pairs[/]", *head, number(row["rho_all_pairs"]))
        table.add_row("[bold]over sources[/]", *head, number(row["rho"]), _interval(row), number(row["p_matrix"], 4))
    return table


def _layer(row: Mapping[str, Any]) -> str:
    return "" if row["layer"] < 0 else str(row["layer"])


def _interval(row: Mapping[str, Any]) -> str:
    return f"{number(row['low'], 2)} to {number(row['high'], 2)}"


def number(value: float | None, digits: int = 3) -> str:
    """A number for a table; an en dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def _pooled(frame: pl.DataFrame) -> list[dict[str, Any]]:
    return frame.filter(pl.col("seed").is_null()).to_dicts()
