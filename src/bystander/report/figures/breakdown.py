"""Dots with intervals: leakage by category and role; rho under every predictor, at every layer, and with a confounder
held constant."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import polars as pl

from bystander.report.figures import shared
from bystander.report.headline import HeadlineOutcome
from bystander.report.labels import leakage_title

DOT_HEIGHT = 19  # px of one row of dots


def groups(frame: pl.DataFrame, headline: HeadlineOutcome, names: Sequence[str], field: str) -> alt.FacetChart:
    """Mean leakage per `field` (category, role) with its 95 % interval, a panel per source."""
    title = " ".join(leakage_title(headline.probe, headline.metric))
    order: alt.EncodingSortField | list[str] = (
        shared.ROLES if field == "role" else alt.EncodingSortField("leakage", op="mean", order="descending")
    )
    tooltip = [
        alt.Tooltip(f"{field}:N", title=field),
        alt.Tooltip("leakage:Q", title="mean leakage", format="+.3~r"),
        *shared.interval_tooltip("+.3~r"),
        alt.Tooltip("n:Q", title="personas", format="d"),
        alt.Tooltip("contexts:N", title="contexts") if field == "role" else alt.Tooltip("source:N", title="source"),
        alt.Tooltip("record:N", title="record"),
    ]
    return _dots(frame, names, alt.Y(f"{field}:N", sort=order, title=None), "leakage", title, tooltip)


def predictors(frame: pl.DataFrame, names: Sequence[str]) -> alt.FacetChart:
    """Rho of every predictor at the study's layer, a panel per source. `frame`: `frames.predictors`."""
    order = frame.sort("order")["predictor"].unique(maintain_order=True).to_list()
    y = alt.Y("predictor:N", sort=order, title=None)
    return _dots(frame, names, y, "rho", "Similarity gradient: Spearman's rho with leakage", _rho_tooltip("predictor"))


def partials(frame: pl.DataFrame, names: Sequence[str]) -> alt.FacetChart:
    """Rho raw and with each confounder held constant, a panel per source. `frame`: `frames.partials`."""
    order = frame["held"].unique(maintain_order=True).to_list()
    y = alt.Y("held:N", sort=order, title=None)
    return _dots(frame, names, y, "rho", "Similarity gradient: Spearman's rho with leakage", _rho_tooltip("held"))


def _rho_tooltip(field: str) -> list[alt.Tooltip]:
    return [
        alt.Tooltip(f"{field}:N", title="predictor" if field == "predictor" else "held constant"),
        alt.Tooltip("rho:Q", title="rho", format=".2f"),
        *shared.interval_tooltip(".2f"),
        alt.Tooltip("p:Q", title="permutation p", format=".4~f"),
        alt.Tooltip("record:N", title="record"),
    ]


def _dots(
    frame: pl.DataFrame, names: Sequence[str], y: alt.Y, value: str, title: str, tooltip: list[alt.Tooltip]
) -> alt.FacetChart:
    single = len(shared.sources(frame)) == 1
    base = alt.Chart(frame).transform_filter(shared.of_arm())
    y = y.axis(
        alt.Axis(
            labelExpr="replace(datum.label, /_/g, ' ')",
            labelLimit=190,
            ticks=False,
            domain=False,
            labelPadding=8,
            grid=True,
        )
    )
    x = alt.X(f"{value}:Q", title=title if single else None, axis=shared.value_axis(4))
    bar = base.mark_rule(style="dot", strokeWidth=2, tooltip=None).encode(x="low:Q", x2="high:Q", y=y)
    dot = base.mark_point(style="dot", size=46, opacity=1, filled=True, tooltip=True).encode(x=x, y=y, tooltip=tooltip)
    chart = shared.layered(bar, dot, width=420 if single else 150, height=alt.Step(DOT_HEIGHT))
    return shared.switchable_panels(chart, frame, names, title, gutter=190, least=120, widest=520)


def layers(frame: pl.DataFrame, names: Sequence[str]) -> alt.FacetChart:
    """Rho over the layers of the model, a line per predictor that has layers. `frame`: `frames.layers`."""
    single = len(shared.sources(frame)) == 1
    base = alt.Chart(frame).transform_filter(shared.of_arm())
    listed = frame["predictor"].unique(maintain_order=True).to_list()
    color = alt.Color("predictor:N", sort=listed, title="Predictor",
                      legend=alt.Legend(labelLimit=400, columns=1, symbolOpacity=1))  # fmt: skip
    dash = alt.StrokeDash("predictor:N", sort=listed, legend=None)
    x = alt.X(
        "layer:Q",
        title="Layer (0: embeddings)" if single else None,
        axis=alt.Axis(format="d", tickMinStep=1, grid=False),
    )
    y = alt.Y("rho:Q", title="Spearman's rho", axis=shared.value_axis(5))
    band = base.transform_filter("datum.primary").mark_area(fillOpacity=0.16, opacity=1, tooltip=None)
    chosen = base.transform_filter("datum.registered").mark_rule(style="zero", tooltip=None).encode(x="layer:Q")
    line = base.mark_line(strokeWidth=1.8, tooltip=None).encode(x=x, y=y, color=color, strokeDash=dash)
    point = base.mark_point(size=26, filled=True, opacity=1, tooltip=True).encode(
        x=x, y=y, color=color, tooltip=[alt.Tooltip("layer:Q", title="layer", format="d"), *_rho_tooltip("predictor")]
    )
    band = band.encode(x=x, y="low:Q", y2="high:Q", color=color)
    chart = shared.layered(chosen, band, line, point, width=460 if single else 170, height=240 if single else 160)
    return shared.switchable_panels(chart, frame, names, "Layer (0: embeddings)", least=130, widest=620, aspect=0.9)
