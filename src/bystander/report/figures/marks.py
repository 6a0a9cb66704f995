"""Pieces that several figures share: the followed persona, the switch between arms, common channels.

Charts name no color (see `theme`). Every chart of personas has the parameter `follow` (a persona's name) and, where a
study has several arms, `arm`; in a notebook they are input fields below the chart, in the page the script sets them.
"""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

ROLES = ["held-out", "source", "negative"]
FOLLOWED = "datum.persona === follow"
PANELS_PER_ROW = 5  # one per source of the built-in study; the page re-flows them to its width


def follow() -> alt.Parameter:
    """The persona that is followed through all panels; "" for none."""
    return alt.param(name="follow", value="", bind=alt.BindInput(input="text", name="Follow persona "))


def arm_switch(names: Sequence[str]) -> alt.Parameter:
    """Which arm a figure shows."""
    bind = alt.binding_select(options=list(names), name="Arm ") if len(names) > 1 else alt.Undefined
    return alt.param(name="arm", value=names[0] if names else "", bind=bind)


def switchable(
    chart: alt.FacetChart | alt.VConcatChart | alt.LayerChart | alt.HConcatChart, names: Sequence[str]
) -> None:
    """Give a compound chart its top-level parameters. `add_params` would push them into subcharts, and fails on facets
    of layers (Altair 6.3)."""
    chart.params = [follow().param, arm_switch(names).param]


def panels(chart: alt.LayerChart, order: Sequence[str], *, above: str, below: str, gap: int = 2) -> alt.FacetChart:
    """One panel per source, re-flowed by the page to its width. `below`: the axis title that all panels share."""
    header = alt.Header(
        labelAnchor="start", labelPadding=gap, labelExpr="replace(datum.label, /_/g, ' ')", titleAnchor="start",
        titleFontSize=14, titlePadding=8, title=above or None,
    )  # fmt: skip
    title = alt.TitleParams(below, orient="bottom", anchor="middle", offset=8, style="axis-title") if below else None
    return chart.facet(
        facet=alt.Facet("source:N", sort=list(order), header=header, title=above or None),
        columns=PANELS_PER_ROW,
        **({"title": title} if title else {}),
    )


def of_arm() -> str:
    """The filter that keeps the arm which is switched on."""
    return "datum.arm === arm"


def role_color(**legend: object) -> alt.Color:
    """Color by role, in the fixed order that gives each role its color whatever roles are there."""
    scale = alt.Scale(domain=ROLES, range="category")
    return alt.Color("role:N", scale=scale, legend=alt.Legend(title="Role in training", **legend))


def role_shape() -> alt.Shape:
    """Shape by role as well, for print in black and for readers who do not see the colors."""
    scale = alt.Scale(domain=ROLES, range=["circle", "diamond", "triangle-up"])
    return alt.Shape("role:N", scale=scale, legend=alt.Legend(title="Role in training"))


def persona_tooltip() -> list[alt.Tooltip]:
    """Persona, role, similarity, leakage with its interval, before and after, and the system prompt."""
    return [
        alt.Tooltip("persona:N", title="persona"),
        alt.Tooltip("category:N", title="category"),
        alt.Tooltip("role:N", title="role"),
        alt.Tooltip("similarity:Q", title="similarity", format=".3f"),
        alt.Tooltip("leakage:Q", title="leakage", format="+.3~r"),
        alt.Tooltip("low:Q", title="95 % interval, from", format="+.3~r"),
        alt.Tooltip("high:Q", title="to", format="+.3~r"),
        alt.Tooltip("before:Q", title="before training", format=".3~r"),
        alt.Tooltip("after:Q", title="after training", format=".3~r"),
        alt.Tooltip("n_items:Q", title="items", format="d"),
        alt.Tooltip("prompt:N", title="system prompt"),
        alt.Tooltip("record:N", title="record"),
    ]


ZERO_LINE: dict[str, object] = {"gridWidth": {"condition": {"test": "datum.value === 0", "value": 2}, "value": 0.7}}
