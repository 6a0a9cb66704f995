"""Files of the report: the page and its figures, each written whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from bystander.analysis.results import Analysis
from bystander.core.files import write_bytes
from bystander.report.figures import charts
from bystander.report.figures.save import save_figures, specifications
from bystander.report.inputs import ReportInput
from bystander.report.page import render

Style = Literal["screen", "paper"]


def write_report(analysis: Analysis, inputs: ReportInput | None, out: Path, style: Style = "screen") -> Path:
    """Write `report.html` and `figures/*.svg, *.png, *.pdf`; returns the page's path.

    `out` is the page's path, or the folder to hold it. `style` "paper" sets the figure files at a column's width;
    the page itself is the same. Raises StoreError where a file cannot be written; the old page is left then.
    """
    given = inputs or ReportInput()
    target = out if out.suffix == ".html" else out / "report.html"
    specs = specifications(charts(analysis, given))
    text = render(analysis, given, specs)
    write_bytes(target, text.encode())
    save_figures(specs, target.parent / "figures", style)
    return target
