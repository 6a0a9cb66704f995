"""Personas by checkpoint: when did the behavior reach whom."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import polars as pl

from bystander.report.figures import shared
from bystander.report.headline import HeadlineOutcome
from bystander.report.labels import leakage_title

NAMED_ROWS = 40  # up to as many rows have their name beside them; more are read by hovering


def heat(frame: pl.DataFrame, headline: HeadlineOutcome, names: Sequence[str]) -> alt.FacetChart:
    """A panel per source: rows are personas, the source first and then by falling similarity; columns are checkpoints.

    The color scale ends at the largest change of a bystander; the source's own is beyond it, and is cut there.
    """
    rows = int(frame["position"].max() or 1)  # pyright: ignore[reportArgumentType]
    others = frame.filter(pl.col("role") != "source")
    limit = float(others["leakage"].abs().max() or 1.0)  # pyright: ignore[reportArgumentType]
    single = len(shared.sources(frame)) == 1
    named = single and rows <= 130
    step = 18 if rows <= NAMED_ROWS else 11 if named else 4
    y = alt.Y(
        "name:N" if named else "position:O",
        sort=alt.EncodingSortField("position", order="ascending"),
        title=None if named else ["Personas: the source,", "then most similar first"],
        axis=alt.Axis(labelLimit=180, ticks=False, domain=False, labelPadding=6, labelFontSize=11 if step > 11 else 9)
        if named
        else alt.Axis(labels=False, ticks=False, domain=False),
    )
    color = alt.Color(
        "leakage:Q",
        scale=alt.Scale(domain=[-limit, 0, limit], range="diverging", clamp=True),
        legend=alt.Legend(title=" ".join(leakage_title(headline.probe, headline.metric)), format="~r", titleLimit=420),
    )
    below = "Checkpoint (fraction of training)"
    x = alt.X(
        "checkpoint:O", title=below if single else None, axis=alt.Axis(labelAngle=0, format="~g", labelOverlap=True)
    )
    base = alt.Chart(frame).transform_filter(shared.of_arm())
    cells = base.mark_rect(tooltip=True, cursor="pointer").encode(
        x=x, y=y, color=color, tooltip=_tooltip(), description="persona:N"
    )
    outline = (
        base.transform_filter(shared.FOLLOWED)
        .mark_rect(style="outline", tooltip=None, fillOpacity=0)
        .encode(x="checkpoint:O", y=y)
    )
    chart = shared.layered(cells, outline, width=420 if single else 150, height=alt.Step(step))
    return shared.switchable_panels(chart, frame, names, below, gutter=150 if named else 40, least=120, widest=620)


def _tooltip() -> list[alt.Tooltip]:
    return [
        alt.Tooltip("persona:N", title="persona"),
        alt.Tooltip("role:N", title="role"),
        alt.Tooltip("similarity:Q", title="similarity to the source", format=".3f"),
        alt.Tooltip("checkpoint:Q", title="checkpoint", format="~g"),
        alt.Tooltip("leakage:Q", title="leakage", format="+.3~r"),
        alt.Tooltip("value:Q", title="metric", format=".3~r"),
        alt.Tooltip("n_items:Q", title="items", format="d"),
        alt.Tooltip("record:N", title="record"),
    ]
