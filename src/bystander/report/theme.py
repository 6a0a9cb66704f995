"""How figures look: one palette that color-blind readers can tell apart, in light, dark and on paper.

A chart names no color. It uses the ranges `category`, `diverging` and `ordinal` and the mark styles below, so that the
page can redraw it in the dark by exchanging the configuration alone.
Palette: Okabe and Ito (2008), "Color universal design"; the diverging ramp runs between its blue and its vermilion.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Look = Literal["light", "dark", "paper"]
SANS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Liberation Sans', Arial, sans-serif"
HOVER = "hover"  # the name of a layer that only a mouse finds; files leave it out
PRINT_SANS = "'Helvetica Neue', Helvetica, 'Liberation Sans', Arial, sans-serif"


@dataclass(frozen=True, slots=True)
class Palette:
    """Colors of one look, as hex."""

    ink: str
    muted: str
    hairline: str
    category: tuple[str, ...]
    diverging: tuple[str, ...]
    ordinal: tuple[str, ...]  # five steps, each readable as a line on the background
    accent: str
    strong: str  # text on the ends of the diverging ramp


LIGHT = Palette(
    ink="#1c1b19",
    muted="#66635c",
    hairline="#e6e2d8",
    category=("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7a6a00", "#5c5c5c"),
    diverging=("#0b4a78", "#3f8cc0", "#a9cbe2", "#f4f1ea", "#f2bd93", "#d9702a", "#8f3a00"),
    ordinal=("#a9c6dc", "#76aacf", "#4187ba", "#1b6299", "#0a3a61"),
    accent="#b3261e",
    strong="#ffffff",
)
DARK = Palette(
    ink="#ebe8e1",
    muted="#a29f97",
    hairline="#2f3238",
    category=("#62b5ea", "#f08a3c", "#35c79b", "#e3a0c6", "#9bd0f2", "#f2c14e", "#c9bb58", "#b5b5b5"),
    diverging=("#8fd0ff", "#3c8fca", "#1f4f73", "#23262b", "#74401d", "#d9772f", "#ffc08a"),
    ordinal=("#2c5878", "#2f77a8", "#4a9fd4", "#8cc9ef", "#dcf1ff"),
    accent="#ff8a80",
    strong="#14161a",
)
WHITE = (*LIGHT.diverging[:3], "#ffffff", *LIGHT.diverging[4:])
PAPER = replace(LIGHT, ink="#000000", muted="#444444", hairline="#dddddd", diverging=WHITE)
PALETTES: dict[Look, Palette] = {"light": LIGHT, "dark": DARK, "paper": PAPER}


def config(look: Look) -> dict[str, object]:
    """The Vega-Lite configuration of that look. Sizes are px at 96 per inch; paper sets 7 to 8 pt type."""
    colors = PALETTES[look]
    paper = look == "paper"
    small, normal = (9, 10) if paper else (11, 12)
    axis = {
        "labelFontSize": small,
        "titleFontSize": small if paper else normal,
        "titleFontWeight": "normal",
        "labelColor": colors.muted,
        "titleColor": colors.ink,
        "domainColor": colors.hairline,
        "tickColor": colors.hairline,
        "gridColor": colors.hairline,
        "tickSize": 3,
        "titlePadding": 6 if paper else 10,
        "labelPadding": 4,
    }
    return {
        "background": "white" if paper else "transparent",
        "font": PRINT_SANS if paper else SANS,
        "padding": 4,
        "view": {"stroke": colors.hairline, "strokeWidth": 1},
        "axis": axis,
        "legend": {
            "labelFontSize": small,
            "titleFontSize": small,
            "titleFontWeight": "normal",
            "titleLimit": 460,
            "labelColor": colors.ink,
            "titleColor": colors.muted,
            "orient": "top",
            "symbolSize": 60,
            "gradientLength": 140 if paper else 180,
            "gradientThickness": 9,
        },
        "header": {
            "labelFontSize": normal,
            "labelFontWeight": 600,
            "labelColor": colors.ink,
            "titleColor": colors.muted,
            "titleFontWeight": "normal",
        },
        "title": {"fontSize": normal + 1, "fontWeight": 600, "color": colors.ink, "anchor": "start"},
        "range": {
            "category": list(colors.category),
            "diverging": list(colors.diverging),
            "ordinal": list(colors.ordinal),
        },
        "point": {"size": 22 if paper else 42, "filled": True, "strokeWidth": 0},
        "rect": {"stroke": None},
        "style": _styles(colors, small, PRINT_SANS if paper else SANS),
    }


def _styles(colors: Palette, small: int, font: str) -> dict[str, object]:
    return {
        "note": {**_ink(colors.muted), "fontSize": small, "align": "left", "baseline": "bottom"},
        "name": {**_ink(colors.ink), "fontSize": small, "align": "left", "baseline": "middle"},
        "name-left": {**_ink(colors.ink), "fontSize": small, "align": "right", "baseline": "middle"},
        "axis-title": {
            **_ink(colors.ink),
            "font": font,
            "fontSize": max(small, min(small + 1, 12)),
            "fontWeight": "normal",
        },
        "followed": {**_ink(colors.accent), "fontSize": small + 1, "fontWeight": 600, "align": "left"},
        "ring": {"stroke": colors.accent, "strokeWidth": 2, "filled": False, "fill": None},
        "outline": {"stroke": colors.accent, "strokeWidth": 2, "fill": None},
        "zero": {"stroke": colors.muted, "strokeWidth": 1, "strokeDash": [3, 3]},
        "curve": {"stroke": colors.ink, "strokeWidth": 3, "fill": None},
        "strip": {"stroke": colors.ink, "strokeWidth": 1, "strokeOpacity": 0.55},
        "dot": {"stroke": colors.category[0], "fill": colors.category[0], "color": colors.category[0]},
        "value": {**_ink(colors.ink), "fontSize": small, "baseline": "middle", "align": "center"},
        "value-strong": {**_ink(colors.strong), "fontSize": small, "baseline": "middle", "align": "center"},
    }


def _ink(color: str) -> dict[str, object]:
    """Vega-Lite reads `color` for a text mark, Vega itself `fill`."""
    return {"color": color, "fill": color}
