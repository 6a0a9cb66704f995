"""Pieces that several figures share: the followed persona, the switch between arms, common channels.

Charts name no color (see `theme`). Every chart of personas has the parameter `follow` (a persona's name) and, where a
study has several arms, `arm`; in a notebook they are input fields below the chart, in the page the script sets them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import altair as alt
import polars as pl

ROLES = ["held-out", "source", "negative", "mixed"]
FOLLOWED = "datum.persona === follow"
UNFADED = "follow === '' || datum.persona === follow"
PANELS_PER_ROW = 5  # one per source of the built-in study; the page re-flows them to its width


def follow() -> alt.Parameter:
    """The persona that is followed through all panels; "" for none."""
    return alt.param(name="follow", value="", bind=alt.BindInput(input="text", name="Follow persona "))


def arm_switch(names: Sequence[str]) -> alt.Parameter:
    """Which arm a figure shows."""
    bind = alt.binding_select(options=list(names), name="Arm ") if len(names) > 1 else alt.Undefined
    return alt.param(name="arm", value=names[0] if names else "", bind=bind)


Compound = alt.FacetChart | alt.VConcatChart | alt.LayerChart | alt.ConcatChart


def switchable(chart: Compound, names: Sequence[str], hints: Mapping[str, float]) -> None:
    """Give a compound chart its top-level parameters, and the page its hints on how to re-flow panels (px).

    `add_params` would push the parameters into subcharts, and fails on facets of layers (Altair 6.3).
    """
    chart.params = cast("list[alt.VariableParameter]", [follow().param, arm_switch(names).param])
    chart.usermeta = dict(hints)


def layered(*layers: alt.Chart, width: int | alt.Step, height: int | alt.Step, title: str = "") -> alt.LayerChart:
    """Layers of one size."""
    # `alt.layer` says that it may return a facet; it does so only where it is given one.
    chart = cast("alt.LayerChart", alt.layer(*layers).properties(width=width, height=height))
    return chart.properties(title=title) if title else chart


def sources(frame: pl.DataFrame) -> list[str]:
    """The sources of a figure's rows, in their order: a panel each. With one source the panel is larger."""
    return frame["source"].unique(maintain_order=True).to_list()


def panels(
    chart: alt.LayerChart, frame: pl.DataFrame, *, below: str | list[str], above: str = "", gap: int = 2
) -> alt.FacetChart:
    """One panel per source, re-flowed by the page to its width. `below`: the axis title that several panels share."""
    header = alt.Header(
        labelAnchor="start", labelPadding=gap, labelExpr="replace(datum.label, /_/g, ' ')", titleAnchor="start",
        titleFontSize=14, titlePadding=8, title=above or None,
    )  # fmt: skip
    order = sources(frame)
    facet = alt.Facet("source:N", sort=order, header=header, title=above or None)
    grid = chart.facet(facet=facet, columns=PANELS_PER_ROW)
    title = alt.TitleParams(below, orient="bottom", anchor="middle", offset=8, style="axis-title")
    return grid.properties(title=title) if len(order) > 1 else grid


def switchable_panels(
    chart: alt.LayerChart, frame: pl.DataFrame, names: Sequence[str], below: str | list[str], **hints: float
) -> alt.FacetChart:
    """`panels` of a figure by itself: with its parameters and the page's hints."""
    grid = panels(chart, frame, below=below)
    switchable(grid, names, hints)
    return grid


def of_arm() -> str:
    """The filter that keeps the arm which is switched on."""
    return "datum.arm === arm"


def role_color(rows: pl.DataFrame, *, legend: bool = True) -> alt.Color:
    """Color by role, in the fixed order that gives each role its color whatever roles are there."""
    scale = alt.Scale(domain=ROLES, range="category")
    return alt.Color("role:N", scale=scale, legend=_role_legend(rows) if legend else None)


def role_shape(rows: pl.DataFrame, *, legend: bool = True) -> alt.Shape:
    """Shape by role as well, for print in black and for readers who do not see the colors."""
    scale = alt.Scale(domain=ROLES, range=["circle", "diamond", "triangle-up", "square"])
    return alt.Shape("role:N", scale=scale, legend=_role_legend(rows) if legend else None)


def _role_legend(rows: pl.DataFrame) -> alt.Legend:
    there = set(rows["role"].unique().to_list())
    return alt.Legend(title="Role in training", values=[role for role in ROLES if role in there])


def clear(full: float, faint: float) -> alt.FillOpacityValue:
    """Opacity `full` while nobody is followed and for who is, else `faint`. A channel object: Altair takes 30 ms to
    make one from `alt.when(...)`."""
    return alt.FillOpacityValue(faint, condition={"test": UNFADED, "value": full})


def marked(faint: float) -> alt.StrokeOpacityValue:
    """The stroke of the followed persona in full, the others `faint`."""
    return alt.StrokeOpacityValue(faint, condition={"test": FOLLOWED, "value": 1})


def interval_tooltip(form: str) -> list[alt.Tooltip]:
    """The two ends of the interval; the page leaves out what is null."""
    return [
        alt.Tooltip("low:Q", title="95 % interval, from", format=form),
        alt.Tooltip("high:Q", title="to", format=form),
    ]


def persona_tooltip() -> list[alt.Tooltip]:
    """Persona, role, similarity, leakage with its interval, before and after, and the system prompt."""
    return [
        alt.Tooltip("persona:N", title="persona"),
        alt.Tooltip("category:N", title="category"),
        alt.Tooltip("role:N", title="role"),
        alt.Tooltip("similarity:Q", title="similarity", format=".3f"),
        alt.Tooltip("leakage:Q", title="leakage", format="+.3~r"),
        *interval_tooltip("+.3~r"),
        alt.Tooltip("before:Q", title="before training", format=".3~r"),
        alt.Tooltip("after:Q", title="after training", format=".3~r"),
        alt.Tooltip("n_items:Q", title="items", format="d"),
        alt.Tooltip("prompt:N", title="system prompt"),
        alt.Tooltip("record:N", title="record"),
    ]


def extent(values: pl.Series, beyond: float) -> list[float]:
    """A domain for an axis: from the smallest to the largest of `values` and zero, and that share of it on either side.

    For axes whose intervals may be so wide that the values themselves would not be told apart."""
    known = [0.0, *values.drop_nulls().to_list()]
    low, high = min(known), max(known)
    more = beyond * ((high - low) or 1.0)
    return [low - more, high + more]


def value_axis(ticks: int) -> alt.Axis:
    """An axis in plain decimals whose line at zero, no change at all, is the heavier one."""
    return alt.Axis(
        format="~r",
        tickCount=ticks,
        gridWidth=alt.when("datum.value === 0").then(alt.value(2)).otherwise(alt.value(0.7)),
    )
