"""`charts`: every figure that the records allow, by name, in the order of the page."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import polars as pl

from bystander.analysis.results import Analysis
from bystander.report.figures import frames
from bystander.report.headline import Lead, leads
from bystander.report.inputs import ReportInput
from bystander.report.labels import readable

if TYPE_CHECKING:
    import altair as alt

    from bystander.report.figures.shared import Compound

    Figure = Compound | alt.Chart


KINDS = ("scatter", "heatmap", "quintiles", "timing", "phase", "category", "role", "partials", "rivals", "layers",
         "losses")  # fmt: skip


def charts(analysis: Analysis, inputs: ReportInput | None = None) -> dict[str, alt.Chart]:
    """Altair charts by name: "scatter", "heatmap-marker", ... A figure without records is left out."""
    given = inputs or ReportInput()
    chosen = leads(analysis, given.leads)
    names = frames.arms(analysis, chosen)
    found: dict[str, Figure] = {}
    found.update(_scatter(analysis, given, chosen, names))
    for lead in chosen:
        found.update(_of_behavior(analysis, given, lead, names))
    found.update(_losses(given))
    return {name: cast("alt.Chart", chart) for name, chart in found.items()}


def _scatter(analysis: Analysis, inputs: ReportInput, chosen: list[Lead], names: list[str]) -> dict[str, Figure]:
    from bystander.report.figures import scatter

    rows: list[alt.FacetChart] = []
    for lead in chosen:
        frame = frames.scatter(analysis, inputs, lead, names)
        if frame.filter(kind="persona").height:
            title = readable(lead.behavior) if len(chosen) > 1 else ""
            rows.append(scatter.scatter(frame, lead, title=title))
    return {"scatter": scatter.grid(rows, names)} if rows else {}


def _of_behavior(analysis: Analysis, inputs: ReportInput, lead: Lead, names: list[str]) -> dict[str, Figure]:
    """Figures that stand once per behavior; in the page a switch between behaviors."""
    from bystander.report.figures import breakdown, heat, sweep, training

    frame = {
        "heatmap": frames.heat(analysis, inputs, lead, names),
        "quintiles": frames.quintiles(analysis, lead, names),
        "timing": frames.timing(analysis, lead, names),
        "category": frames.category_rows(analysis.categories, lead, names),
        "role": frames.category_rows(analysis.roles, lead, names),
        "layers": frames.layers(analysis, lead, names),
        "rivals": frames.rivals(analysis, lead, names),
        "partials": frames.partials(analysis, lead, names),
    }
    make: dict[str, Callable[[pl.DataFrame], Figure]] = {
        "heatmap": lambda rows: heat.heat(rows, lead, names),
        "quintiles": lambda rows: training.quintiles(rows, lead, names),
        "timing": lambda rows: training.timing(rows, lead, names),
        "category": lambda rows: breakdown.groups(rows, lead, names, "category"),
        "role": lambda rows: breakdown.groups(rows, lead, names, "role"),
        "layers": lambda rows: breakdown.layers(rows, names),
        "rivals": lambda rows: breakdown.rivals(rows, names),
        "partials": lambda rows: breakdown.partials(rows, names),
    }
    if frame["layers"]["layer"].n_unique() < 2:  # one layer makes no line
        del frame["layers"]
    found = {_name(kind, lead.behavior): make[kind](rows) for kind, rows in frame.items() if rows.height}
    swept = frames.phase(analysis, lead)
    for source, rows in swept.items():
        found[_name("phase", lead.behavior, source if len(swept) > 1 else "")] = sweep.phase(rows, lead)
    return found


def _name(*parts: str) -> str:
    """A name that is safe as a file's: what is not a letter, digit, dot or underscore becomes an underscore."""
    return "-".join(re.sub(r"[^\w.]", "_", part, flags=re.ASCII).lstrip(".") for part in parts if part)


def _losses(inputs: ReportInput) -> dict[str, Figure]:
    from bystander.report.figures import training

    frame = frames.losses(inputs)
    return {"losses": training.losses(frame)} if frame.height else {}
