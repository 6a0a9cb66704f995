"""The dose curve: bystanders against the source over checkpoints, a panel per source."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import polars as pl

from bystander.report.figures import shared
from bystander.report.headline import HeadlineOutcome
from bystander.report.labels import UNITS, leakage_title, unit_of


def dose(frame: pl.DataFrame, headline: HeadlineOutcome, names: Sequence[str]) -> alt.FacetChart:
    """A thin line a persona, the mean over them, and the line of a bystander who does as the source does.

    `frame`: `frames.dose`. A curve begins at the untrained model, where both are 0.
    """
    single = len(shared.sources(frame)) == 1
    unit = UNITS.get(unit_of(headline.probe, headline.metric), "")
    below = ["Leakage of the source" + (f" ({unit})" if unit else "")]
    base = alt.Chart(frame).transform_filter(shared.of_arm())
    people = base.transform_filter("datum.kind === 'persona'")
    x = alt.X("dose:Q", title=below if single else None, axis=alt.Axis(format="~r", tickCount=5))
    y = alt.Y("leakage:Q", title=leakage_title(headline.probe, headline.metric), axis=shared.value_axis(5))
    tooltip = [
        alt.Tooltip("persona:N", title="persona"),
        alt.Tooltip("checkpoint:Q", title="checkpoint", format="~g"),
        alt.Tooltip("dose:Q", title="source", format="+.3~r"),
        alt.Tooltip("leakage:Q", title="leakage", format="+.3~r"),
        alt.Tooltip("record:N", title="record"),
    ]
    order = alt.Order("checkpoint:Q")
    line = people.mark_line(strokeWidth=1, opacity=1, tooltip=None).encode(
        x=x, y=y, detail="persona:N", order=order, color=shared.role_color(frame, legend=False),
        strokeOpacity=shared.marked(0.35),
    )  # fmt: skip
    point = people.mark_point(size=16, filled=True, opacity=1, tooltip=True, cursor="pointer").encode(
        x="dose:Q", y="leakage:Q", color=shared.role_color(frame, legend=False), fillOpacity=shared.clear(0.6, 0.15),
        tooltip=tooltip,
    )  # fmt: skip
    mean = (
        people.transform_aggregate(dose="mean(dose)", leakage="mean(leakage)", groupby=["source", "arm", "checkpoint"])
        .mark_line(style="curve", strokeWidth=3, tooltip=None)
        .encode(x="dose:Q", y="leakage:Q", order=order)
    )
    same = (
        people.transform_aggregate(most="max(dose)", groupby=["source", "arm"])
        .transform_calculate(least="0")
        .mark_rule(style="zero", tooltip=None)
        .encode(x="least:Q", y="least:Q", x2="most:Q", y2="most:Q")
    )
    text = base.transform_filter("datum.kind === 'area'").mark_text(style="note", tooltip=None)
    text = text.encode(text="label:N", x=alt.XValue(2), y=alt.YValue(-4))
    chart = shared.layered(same, line, point, mean, text, width=460 if single else 170, height=300 if single else 160)
    return shared.switchable_panels(chart, frame, names, below, least=130, widest=620, aspect=0.9)
