"""Leakage against similarity, a panel per source, a row of panels per behavior."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt
import polars as pl

from bystander.report.figures import shared
from bystander.report.headline import HeadlineOutcome
from bystander.report.labels import leakage_title, similarity_title


def scatter(frame: pl.DataFrame, headline: HeadlineOutcome, *, title: str = "") -> alt.FacetChart:
    """The row of panels of one behavior. `frame`: `frames.scatter`."""
    single = len(shared.sources(frame)) == 1
    width, height = (620, 380) if single else (190, 170)
    base = alt.Chart(frame).transform_filter(shared.of_arm())
    people = base.transform_filter("datum.kind === 'persona'")
    below = similarity_title(headline.method, headline.layer)
    x = alt.X("similarity:Q", title=below if single else None, scale=alt.Scale(zero=False, nice=True))
    scale = alt.Undefined if single else alt.Scale(domain=shared.extent(frame["leakage"], 0.06))
    y = alt.Y("leakage:Q", title=leakage_title(headline.probe, headline.metric), axis=shared.value_axis(5), scale=scale)
    points = people.mark_point(tooltip=True, opacity=1, cursor="pointer").encode(
        x=x, y=y, color=shared.role_color(frame), shape=shared.role_shape(frame), fillOpacity=shared.clear(0.8, 0.18),
        tooltip=shared.persona_tooltip(), description="persona:N",
    )  # fmt: skip
    bar = people.mark_rule(strokeWidth=1, tooltip=None, clip=not single).encode(
        x="similarity:Q", y="low:Q", y2="high:Q", color=shared.role_color(frame),
        strokeOpacity=shared.marked(0.28 if single else 0),
    )  # fmt: skip
    half = base.transform_filter("datum.kind === 'half'").mark_rule(style="zero", tooltip=None).encode(y="leakage:Q")
    strip = people.transform_filter("datum.role !== 'negative'").mark_tick(
        style="strip", orient="horizontal", size=9, tooltip=None
    )
    strip = strip.encode(x=alt.XValue("width"), y="leakage:Q")
    layers = [
        half,
        strip,
        bar,
        points,
        *_names(people, single=single),
        *_followed(people),
        base.transform_filter("datum.kind === 'rho'")
        .mark_text(style="note", tooltip=None)
        .encode(text="label:N", x=alt.XValue(2), y=alt.YValue(-4)),
    ]
    chart = shared.layered(*layers, width=width, height=height)
    return shared.panels(chart, frame, above=title, below=below, gap=16)


def _names(people: alt.Chart, *, single: bool) -> list[alt.Chart]:
    """Names of the most leaked-to: to the right of their point, or to its left near the right edge."""
    found: list[alt.Chart] = []
    for side, style, shift in (("right", "name", 6), ("left", "name-left", -6)):
        rows = people.transform_filter(f"datum.label !== '' && datum.persona !== follow && datum.side === '{side}'")
        text = rows.mark_text(style=style, dx=shift, dy=-1, tooltip=None, fontSize=11 if single else 9, limit=130)
        found.append(text.encode(x="similarity:Q", y="leakage:Q", text="label:N", fillOpacity=shared.clear(0.9, 0.25)))
    return found


def _followed(people: alt.Chart) -> list[alt.Chart]:
    one = people.transform_filter(shared.FOLLOWED)
    ring = one.mark_point(style="ring", opacity=1, size=130, tooltip=None).encode(x="similarity:Q", y="leakage:Q")
    name = one.mark_text(style="followed", dx=9, dy=-8, tooltip=None).encode(
        x="similarity:Q", y="leakage:Q", text="persona:N"
    )
    return [ring, name]


def grid(rows: Sequence[alt.FacetChart], names: Sequence[str]) -> alt.VConcatChart:
    """All behaviors, one row each; y axes are their own, since their units differ."""
    chart = alt.vconcat(*rows, spacing=26).resolve_scale(y="independent", color="shared", shape="shared")
    shared.switchable(chart, names, {"least": 130, "widest": 860, "aspect": 0.9})
    return chart
