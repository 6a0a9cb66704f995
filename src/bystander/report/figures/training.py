"""What happened over training: leakage by fifth of similarity, who was reached when, and the loss."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import polars as pl

from bystander.report.figures import shared
from bystander.report.headline import HeadlineOutcome
from bystander.report.labels import leakage_title, similarity_title
from bystander.report.theme import HOVER

CHECKPOINT = "Checkpoint (fraction of training)"


def quintiles(frame: pl.DataFrame, headline: HeadlineOutcome, names: Sequence[str]) -> alt.FacetChart:
    """Mean leakage of each fifth of similarity over training, with 95 % intervals; a panel per source."""
    single = len(shared.sources(frame)) == 1
    base = alt.Chart(frame).transform_filter(shared.of_arm())
    color = alt.Color(
        "quintile:O", scale=alt.Scale(range="ordinal"),
        legend=alt.Legend(title="Fifth of similarity (5: most similar to the source)", symbolOpacity=1),
    )  # fmt: skip
    x = alt.X(
        "checkpoint:Q",
        title=CHECKPOINT if single else None,
        axis=alt.Axis(format=".2~f", values=sorted(frame["checkpoint"].unique().to_list()), grid=False),
    )
    scale = alt.Scale(domain=shared.extent(frame["leakage"], 0.3))
    y = alt.Y("leakage:Q", title=leakage_title(headline.probe, headline.metric), axis=shared.value_axis(5), scale=scale)
    tooltip = [
        alt.Tooltip("quintile:O", title="fifth of similarity"),
        alt.Tooltip("checkpoint:Q", title="checkpoint", format="~g"),
        alt.Tooltip("leakage:Q", title="mean leakage", format="+.3~r"),
        *shared.interval_tooltip("+.3~r"),
        alt.Tooltip("n:Q", title="personas", format="d"),
        alt.Tooltip("record:N", title="record"),
    ]
    band = base.mark_area(fillOpacity=0.14, opacity=1, tooltip=None, clip=True)
    band = band.encode(x=x, y="low:Q", y2="high:Q", color=color)
    line = base.mark_line(strokeWidth=2, tooltip=None).encode(x=x, y=y, color=color)
    point = base.mark_point(size=30, filled=True, opacity=1, tooltip=True).encode(
        x=x, y=y, color=color, tooltip=tooltip
    )
    chart = shared.layered(band, line, point, width=460 if single else 170, height=260 if single else 160)
    return shared.switchable_panels(chart, frame, names, CHECKPOINT, least=130, widest=620, aspect=0.9)


def timing(frame: pl.DataFrame, headline: HeadlineOutcome, names: Sequence[str]) -> alt.FacetChart:
    """The checkpoint at which half of a persona's final leakage was reached, against similarity; a panel per source."""
    single = len(shared.sources(frame)) == 1
    base = alt.Chart(frame).transform_filter(shared.of_arm())
    below = similarity_title(headline.method, headline.layer)
    x = alt.X("similarity:Q", title=below if single else None, scale=alt.Scale(zero=False))
    y = alt.Y(
        "half_point:Q", title=["Half of the final leakage", "reached at (checkpoint)"],
        scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="~g", tickCount=5),
    )  # fmt: skip
    tooltip = [
        alt.Tooltip("persona:N", title="persona"),
        alt.Tooltip("similarity:Q", title="similarity", format=".3f"),
        alt.Tooltip("half_after:Q", title="half reached after", format="~g"),
        alt.Tooltip("half_by:Q", title="and by", format="~g"),
        alt.Tooltip("onset:Q", title="onset", format="~g"),
        alt.Tooltip("final_leakage:Q", title="final leakage", format="+.3~r"),
        alt.Tooltip("record:N", title="record"),
    ]
    span = base.mark_rule(tooltip=None, strokeWidth=1).encode(
        x="similarity:Q", y="half_after:Q", y2="half_by:Q", color=shared.role_color(frame, legend=False),
        strokeOpacity=shared.marked(0.22),
    )  # fmt: skip
    point = base.mark_point(tooltip=True, opacity=1, cursor="pointer").encode(
        x=x, y=y, color=shared.role_color(frame, legend=False), shape=shared.role_shape(frame, legend=False), fillOpacity=shared.clear(0.85, 0.15),
        tooltip=tooltip,
    )  # fmt: skip
    ring = base.transform_filter(shared.FOLLOWED).mark_point(style="ring", opacity=1, size=130, tooltip=None)
    ring = ring.encode(x="similarity:Q", y="half_point:Q")
    chart = shared.layered(span, point, ring, width=460 if single else 170, height=260 if single else 160)
    return shared.switchable_panels(chart, frame, names, below, least=130, widest=620, aspect=0.9)


def losses(frame: pl.DataFrame) -> alt.LayerChart:
    """Training loss by optimizer step, a line per training."""
    base = alt.Chart(frame)
    x = alt.X("step:Q", title="Optimizer step", axis=alt.Axis(format="d", grid=False))
    y = alt.Y("loss:Q", title=["Loss (nats per loss token,", "mean of the batch)"], axis=shared.value_axis(5))
    color = alt.Color(
        "behavior:N", title="Behavior", legend=alt.Legend(symbolOpacity=1) if frame["behavior"].n_unique() > 1 else None
    )
    line = base.mark_line(strokeWidth=1.2, strokeOpacity=0.75, opacity=1, tooltip=None).encode(
        x=x, y=y, color=color, detail="label:N"
    )
    hover = base.mark_point(size=34, filled=True, fillOpacity=0, opacity=1, tooltip=True).encode(
        x=x, y=y, color=color,
        tooltip=[alt.Tooltip("label:N", title="training"), alt.Tooltip("step:Q", title="step", format="d"),
                 alt.Tooltip("loss:Q", title="loss", format=".3f"), alt.Tooltip("learning_rate:Q", title="learning rate", format=".2e")],
    )  # fmt: skip
    chart = shared.layered(line, hover.properties(name=HOVER), width=620, height=220)
    chart.usermeta = {"widest": 860}
    return chart
