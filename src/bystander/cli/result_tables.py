"""Results as a terminal shows them: short tables and lines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from bystander.analysis import Analysis
from bystander.cli.console import Grid, interval, number
from bystander.report.labels import readable

TRAINING = ("behavior", "source", "arm", "config", "probe", "dataset", "metric")


def headline_table(analysis: Analysis) -> Grid:
    """The short table at the end of a run: per training and metric the source's levels before and after, the held-out
    bystanders' mean change in the behavior's direction, and the gradient at the study's layer."""
    controls = {_key(row) for row in _pooled(analysis.checks) if row["control"]}
    rows = [row for row in _pooled(analysis.leakage_ratio) if _key(row) not in controls]
    several = [name for name in ("behavior", "arm", "config", "dataset") if len({row[name] for row in rows}) > 1]
    names = ("source", *several, "metric")
    grid = Grid(names, ("source before", "source after", "held-out change", "rho", "95 % interval", "p", "n"))
    own = {_key(row): row for row in _pooled(analysis.leakage) if row["role"] == "source"}
    gradients = _pooled(analysis.similarity_correlation)
    claimed = {(row["method"], row["layer"]) for row in gradients if row["preregistered"]} or _named_predictor(analysis)
    ranks = {_key(row): row for row in gradients if (row["method"], row["layer"]) in claimed}
    for row in rows:
        source, rank = own.get(_key(row), dict[str, Any]()), ranks.get(_key(row), dict[str, Any]())
        grid.add(
            *(row[name] or "" for name in names), number(source.get("before")), number(source.get("after")),
            number(row["bystander_leakage"]), number(rank.get("rho"), 2),
            interval(rank["low"], rank["high"]) if rank else "–", number(rank.get("p"), 4), str(rank.get("n", "–")),
        )  # fmt: skip
    return grid


def _named_predictor(analysis: Analysis) -> set[tuple[Any, Any]]:
    """The predictor that the settings name, at its layer or without one: for a table in which nothing was declared."""
    method, layer = analysis.settings.get("method"), analysis.settings.get("layer")
    return {(method, layer), (method, -1)}


def control_lines(analysis: Analysis) -> list[str]:
    """What must not move, over all personas: a line per training and control metric."""
    rows = _pooled(analysis.checks)
    several = len({(row["source"], row["behavior"], row["arm"], row["config"]) for row in rows if row["source"]}) > 1
    lines: list[str] = []
    for row in rows:
        if row["control"] and row["after"] is not None:
            named = " ".join(readable(row[name]) for name in ("source", "behavior", "arm") if row[name])
            whose = f", {named} {row['config']}".rstrip() if several else ""
            change = f"{row['change']:+z.3f} [{number(row['low'], 2)}, {number(row['high'], 2)}]"
            lines.append(
                f"control {row['dataset']} {readable(row['metric'])}{whose}: {number(row['before'])} before, {number(row['after'])} "
                f"after, {change} over all personas"
            )
    return lines


def gradient_table(analysis: Analysis) -> Grid:
    """Every gradient of an analysis, then those over all sources."""
    grid = Grid(("source", "predictor"), ("layer", "n", "rho", "95 % interval", "p", "within", "p within"))
    for row in analysis.similarity_correlation.iter_rows(named=True):
        grid.add(
            row["source"], row["method"], _layer(row), str(row["n"]), number(row["rho"]), interval(row["low"], row["high"]),
            number(row["p"], 4), number(row["rho_within_category"]), number(row["p_within_category"], 4),
        )  # fmt: skip
    for row in analysis.pooled.iter_rows(named=True):
        head = row["method"], _layer(row), str(row["n"])
        grid.add("all pairs", *head, number(row["rho_all_pairs"]), "", "", "", "")
        grid.add(
            "over sources", *head, number(row["rho"]), interval(row["low"], row["high"]), number(row["p_matrix"], 4), "", ""
        )  # fmt: skip
    return grid


def judged_means(measured: pl.DataFrame) -> pl.DataFrame:
    """Mean of each judged metric by training, checkpoint and role (the untrained model's role is null)."""
    by = ["behavior", "source", "arm", "config", "checkpoint", "role"]
    of_rubrics = pl.concat_str("dataset", "metric", separator="/")  # each rubric is a set of its own
    named = pl.when(pl.col("probe") == "scored").then(of_rubrics).otherwise("metric").alias("metric")
    means = measured.with_columns(named).group_by(*by, "metric", maintain_order=True).agg(pl.col("value").mean())
    return means.pivot("metric", index=by, values=["value"])


def judged_table(measured: pl.DataFrame) -> Grid:
    """`judged_means` for a reader."""
    digits = {
        "aligned": 1,
        "coherent": 1,
        "misaligned": 3,
        "code": 3,
        "refusal": 3,
    }  # scores are 0-100, the rest shares
    means = judged_means(measured)
    known = ["behavior", "source", "arm", "config", "checkpoint", "role", *digits]
    digits = {name: places for name, places in digits.items() if name in means.columns}
    digits |= {name: 3 if name.endswith("/shown") else 1 for name in means.columns if name not in known}
    grid = Grid(("training", "role"), ("checkpoint", *digits))
    for row in means.iter_rows(named=True):
        training = "untrained" if row["source"] is None else f"{row['behavior']} {row['source']} {row['arm']}"
        values = [number(row.get(name), places) for name, places in digits.items()]
        grid.add(training, row["role"] or "", f"{row['checkpoint']:g}", *values)
    return grid


def judges_compared(own: pl.DataFrame, measured: pl.DataFrame) -> str:
    """How a judge's `aligned` and rubrics' scores agree with those of the run's own judge; "" where it had none."""
    on = [
        "behavior",
        "source",
        "arm",
        "config",
        "seed",
        "checkpoint",
        "context",
        "persona",
        "dataset",
        "item",
        "metric",
    ]
    first = own.filter(pl.col("metric").is_in(["aligned", "score", "score_falling"]))
    both = first.join(measured, on=on, nulls_equal=True).drop_nulls(["value", "value_right"])
    if not both.height:
        return ""
    apart = (both["value"] - both["value_right"]).abs().mean()
    rank = both.select(pl.corr("value", "value_right", method="spearman")).item()
    return (
        f"against the run's own judge, {both.height:,} answers: rank correlation {rank:z.2f}, mean distance {apart:.1f} "
        "points"
    )


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in TRAINING)


def _layer(row: Mapping[str, Any]) -> str:
    return "" if row["layer"] < 0 else str(row["layer"])


def _pooled(frame: pl.DataFrame) -> list[dict[str, Any]]:
    return frame.filter(pl.col("seed").is_null()).to_dicts()
