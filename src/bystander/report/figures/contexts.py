"""The contexts beside the personas: before and after training, and on the way."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import polars as pl

from bystander.report.figures import shared
from bystander.report.figures.training import CHECKPOINT
from bystander.report.headline import HeadlineOutcome
from bystander.report.labels import UNITS, metric_of

ROW = 22  # px of one context


def value_title(headline: HeadlineOutcome) -> str:
    """The metric as it was measured, with its unit."""
    metric = metric_of(headline.probe, headline.metric)
    return f"{metric.short} ({UNITS[metric.unit]})" if metric else headline.metric.replace("_", " ")


def before_after(
    frame: pl.DataFrame, headline: HeadlineOutcome, names: Sequence[str], *, least: int = 120
) -> alt.FacetChart:
    """A line a context or persona from its value untrained, else in the benign arm (hollow), to that after training
    (filled); a panel per source."""
    single = len(shared.sources(frame)) == 1
    base = alt.Chart(frame).transform_filter(shared.of_arm())
    title = value_title(headline)
    axis = alt.Axis(labelLimit=190, ticks=False, domain=False, labelPadding=8, grid=True)
    y = alt.Y("name:N", sort=frame["name"].unique(maintain_order=True).to_list(), title=None, axis=axis)
    tooltip = [
        alt.Tooltip("persona:N", title="context"),
        alt.Tooltip("since:N", title="line begins at"),
        alt.Tooltip("start:Q", title="there", format=".3~r"),
        alt.Tooltip("after:Q", title="after training", format=".3~r"),
        alt.Tooltip("leakage:Q", title="leakage", format="+.3~r"),
        *shared.interval_tooltip("+.3~r"),
        alt.Tooltip("trained:N", title="trained on"),
        alt.Tooltip("record:N", title="record"),
    ]
    color = shared.role_color(frame)
    x = alt.X("after:Q", title=title if single else None, axis=shared.value_axis(5))
    line = base.mark_rule(strokeWidth=2, tooltip=None).encode(x="start:Q", x2="after:Q", y=y, color=color)
    ring = base.mark_point(size=44, filled=False, strokeWidth=2, opacity=1, tooltip=None).encode(
        x="start:Q", y=y, color=color
    )
    dot = base.mark_point(size=60, filled=True, opacity=1, tooltip=True).encode(x=x, y=y, color=color, tooltip=tooltip)
    chart = shared.layered(line, ring, dot, width=420 if single else 150, height=alt.Step(ROW))
    return shared.switchable_panels(chart, frame, names, title, gutter=190, least=least, widest=620)


def course(frame: pl.DataFrame, headline: HeadlineOutcome, names: Sequence[str]) -> alt.FacetChart:
    """The value under each context at every checkpoint; a panel per source."""
    single = len(shared.sources(frame)) == 1
    base = alt.Chart(frame).transform_filter(shared.of_arm())
    times = alt.Axis(format=".2~f", values=sorted(frame["checkpoint"].unique().to_list()), grid=False)
    x = alt.X("checkpoint:Q", title=CHECKPOINT if single else None, axis=times)
    y = alt.Y("value:Q", title=value_title(headline), axis=shared.value_axis(5))
    order = frame["name"].unique(maintain_order=True).to_list()
    color = alt.Color("name:N", sort=order, legend=alt.Legend(title="Context", columns=1, symbolOpacity=1))
    tooltip = [
        alt.Tooltip("name:N", title="context"),
        alt.Tooltip("checkpoint:Q", title="checkpoint", format="~g"),
        alt.Tooltip("value:Q", title="value", format=".3~r"),
        alt.Tooltip("leakage:Q", title="leakage", format="+.3~r"),
        alt.Tooltip("record:N", title="record"),
    ]
    line = base.mark_line(strokeWidth=2, tooltip=None).encode(
        x=x, y=y, color=color, strokeDash=alt.StrokeDash("name:N", sort=order, legend=None)
    )
    point = base.mark_point(size=34, filled=True, opacity=1, tooltip=True).encode(
        x=x, y=y, color=color, tooltip=tooltip
    )
    chart = shared.layered(line, point, width=460 if single else 170, height=240 if single else 160)
    return shared.switchable_panels(chart, frame, names, CHECKPOINT, least=130, widest=620, aspect=0.9)
