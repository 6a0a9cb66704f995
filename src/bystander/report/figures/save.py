"""Figures as files at print size, and as the specifications that the page carries."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bystander.report.figures.fit import to_column
from bystander.report.theme import config

if TYPE_CHECKING:
    import altair as alt

    from bystander.report.figures.marks import Compound

    Figure = Compound | alt.Chart

INCH = 96.0  # px of a CSS inch; Vega's unit
DOTS = 200  # per inch in the PNG: sharp on paper at column width; print from the PDF or the SVG where more is asked


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


def save_figures(specs: Mapping[str, dict[str, object]], folder: Path, style: str) -> list[Path]:
    """Write each figure as SVG, PDF and PNG (`DOTS` per inch); `style` "paper" sets it at a column's width.

    Returns the paths. Raises StoreError where a file cannot be written.
    """
    import vl_convert

    from bystander.report.write import write_files

    written: list[Path] = []
    for name, spec in specs.items():
        paper = style == "paper"
        look = {**config("paper" if paper else "light"), "background": "white"}
        svg = vl_convert.vegalite_to_svg({**(to_column(spec) if paper else spec), "config": look})
        files = {
            folder / f"{name}.svg": svg.encode("utf-8"),
            folder / f"{name}.png": vl_convert.svg_to_png(svg, scale=DOTS / INCH, ppi=DOTS),
            folder / f"{name}.pdf": vl_convert.svg_to_pdf(svg),
        }
        write_files(files)
        written.extend(files)
    return written
