"""Figures as files at print size, and as the specifications that the page carries."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from bystander.core.files import write_bytes
from bystander.report.figures.fit import to_column
from bystander.report.theme import HOVER, config

if TYPE_CHECKING:
    import altair as alt

    from bystander.report.figures.shared import Compound

    Figure = Compound | alt.Chart

INCH = 96.0  # px of a CSS inch; Vega's unit
POINTS = 72.0  # of an inch: vl-convert takes an SVG's unit for one, and multiplies by ppi / 72
DOTS = 200  # per inch in the PNG: sharp on paper at column width; print from the PDF or the SVG where more is asked
WIDEST = 11.7  # inches of A4 on its side: a grid of many panels is drawn smaller in the PNG, not on a poster


def specifications(charts: Mapping[str, Figure]) -> dict[str, dict[str, object]]:
    """Vega-Lite specifications by name, without configuration: the look is put in where they are drawn."""
    import altair as alt

    found: dict[str, dict[str, object]] = {}
    with alt.data_transformers.enable("default", max_rows=None):
        for name, chart in charts.items():
            spec = chart.to_dict(validate=False)  # the tests validate; here it would double the time
            spec.pop("config", None)
            found[name] = spec
    return found


def without_hover(spec: dict[str, object]) -> dict[str, object]:
    """The specification without its layers named `HOVER`."""
    found = dict(spec)
    if isinstance(layers := spec.get("layer"), list):
        found["layer"] = [one for one in cast("list[dict[str, object]]", layers) if one.get("name") != HOVER]
    if isinstance(inner := spec.get("spec"), dict):  # of a facet
        found["spec"] = without_hover(cast("dict[str, object]", inner))
    return found


def png_scale(svg: str) -> float:
    """vl-convert's `scale` (of a point at `ppi`) for `DOTS` per inch, and fewer where the figure is wider than `WIDEST`."""
    width = re.search(r'<svg[^>]* width="([0-9.]+)"', svg)
    assert width, "vl-convert wrote an SVG without a width"
    return POINTS / INCH * min(1.0, WIDEST * INCH / float(width[1]))


def save_figures(specs: Mapping[str, dict[str, object]], folder: Path, style: str) -> list[Path]:
    """Write each figure as SVG, PDF and PNG (`DOTS` per inch); `style` "paper" sets it at a column's width.

    Returns the paths. Raises StoreError where a file cannot be written.
    """
    import vl_convert

    written: list[Path] = []
    for name, spec in specs.items():
        paper = style == "paper"
        look = {**config("paper" if paper else "light"), "background": "white"}
        drawn = without_hover(spec)
        svg = vl_convert.vegalite_to_svg({**(to_column(drawn) if paper else drawn), "config": look})
        files = {
            folder / f"{name}.svg": svg.encode("utf-8"),
            folder / f"{name}.png": vl_convert.svg_to_png(svg, scale=png_scale(svg), ppi=DOTS),
            folder / f"{name}.pdf": vl_convert.svg_to_pdf(svg),
        }
        for path, content in files.items():
            write_bytes(path, content)
        written.extend(files)
    return written
