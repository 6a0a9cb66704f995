"""The forest plot: similarity correlations of several studies with their intervals, side by side."""

from __future__ import annotations

import altair as alt
import polars as pl

from bystander.report.figures import shared

ROW = 20  # px of one line


def forest(frame: pl.DataFrame) -> alt.VConcatChart:
    """A block per behavior; one line per study, source and arm, in the order of `frame`; the pooled ones are diamonds.

    `frame`: record, run, behavior, line, rho, low, high, p, n, pooled, predictor.
    """
    behaviors = frame["behavior"].unique(maintain_order=True).to_list()
    runs = frame["run"].unique(maintain_order=True).to_list()
    blocks = [_block(frame.filter(behavior=behavior), behavior, runs) for behavior in behaviors]
    chart = alt.vconcat(*blocks, spacing=18).resolve_scale(x="shared", color="shared")
    chart.usermeta = {"gutter": 280, "widest": 720}
    return chart


def _block(frame: pl.DataFrame, behavior: str, runs: list[str]) -> alt.LayerChart:
    base = alt.Chart(frame)
    axis = alt.Axis(labelLimit=260, ticks=False, domain=False, labelPadding=8, grid=True)
    y = alt.Y("line:N", sort=frame["line"].unique(maintain_order=True).to_list(), title=None, axis=axis)
    legend = alt.Legend(title="Study", columns=1, labelLimit=400, symbolOpacity=1)
    color = alt.Color("run:N", scale=alt.Scale(domain=runs, range="category"), legend=legend)
    x = alt.X(
        "rho:Q", title="Similarity gradient: Spearman's rho of leakage with similarity", axis=shared.value_axis(7)
    )
    tooltip = [
        alt.Tooltip("run:N", title="study"),
        alt.Tooltip("line:N", title="which"),
        alt.Tooltip("predictor:N", title="predictor"),
        alt.Tooltip("rho:Q", title="rho", format=".2f"),
        *shared.interval_tooltip(".2f"),
        alt.Tooltip("p:Q", title="permutation p", format=".4~f"),
        alt.Tooltip("n:Q", title="bystanders or pairs", format="d"),
        alt.Tooltip("record:N", title="record"),
    ]
    bar = base.mark_rule(strokeWidth=2, tooltip=None).encode(x="low:Q", x2="high:Q", y=y, color=color)
    one, all_sources = base.transform_filter("!datum.pooled"), base.transform_filter("datum.pooled")
    dots = one.mark_point(filled=True, opacity=1, size=44, tooltip=True)
    diamonds = all_sources.mark_point(filled=True, opacity=1, size=130, shape="diamond", tooltip=True)
    layers = (bar, *(mark.encode(x=x, y=y, color=color, tooltip=tooltip) for mark in (dots, diamonds)))
    return shared.layered(*layers, width=520, height=alt.Step(ROW), title=behavior.replace("_", " "))
