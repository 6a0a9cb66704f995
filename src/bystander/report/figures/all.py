"""`charts`: every figure that the records allow, by name, in the order of the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bystander.analysis.results import Analysis
from bystander.report.figures import frames
from bystander.report.inputs import ReportInput
from bystander.report.labels import readable
from bystander.report.leads import Lead, leads

if TYPE_CHECKING:
    import altair as alt


def charts(analysis: Analysis, inputs: ReportInput | None = None) -> dict[str, alt.Chart]:
    """Altair charts by name: "scatter", "heatmap-marker", ... A figure without records is left out."""
    given = inputs or ReportInput()
    chosen = leads(analysis, given.leads)
    names = frames.arms(analysis, chosen)
    found: dict[str, alt.Chart] = {}
    found.update(_scatter(analysis, given, chosen, names))
    for lead in chosen:
        found.update(_heat(analysis, given, lead, names))
    return found


def _scatter(analysis: Analysis, inputs: ReportInput, chosen: list[Lead], names: list[str]) -> dict[str, alt.Chart]:
    from bystander.report.figures import scatter

    rows = []
    for lead in chosen:
        frame = frames.scatter(analysis, inputs, lead, names)
        if frame.filter(kind="persona").height:
            title = readable(lead.behavior) if len(chosen) > 1 else ""
            rows.append(scatter.scatter(frame, lead, title=title))
    return {"scatter": scatter.grid(rows, names)} if rows else {}  # pyright: ignore[reportReturnType]


def _heat(analysis: Analysis, inputs: ReportInput, lead: Lead, names: list[str]) -> dict[str, alt.Chart]:
    from bystander.report.figures import heat

    frame = frames.heat(analysis, inputs, lead, names)
    if not frame.height:
        return {}
    return {f"heatmap-{lead.behavior}": heat.heat(frame, lead, names)}  # pyright: ignore[reportReturnType]
