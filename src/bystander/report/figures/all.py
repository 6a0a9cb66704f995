"""`charts`: every figure that the records allow, by name, in the order of the page."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import polars as pl

from bystander.analysis.results import Analysis
from bystander.report.figures import frames
from bystander.report.headline import HeadlineOutcome, headline_outcomes
from bystander.report.inputs import ReportInput
from bystander.report.labels import readable

if TYPE_CHECKING:
    import altair as alt

    from bystander.report.figures.shared import Compound

    Figure = Compound | alt.Chart


KINDS = ("levels", "contexts", "contexts_course", "scatter", "heatmap", "quintiles", "dose", "timing", "phase", "category", "role", "partials", "predictors", "layers",
         "losses")  # fmt: skip


# The column whose values are a figure's rows: with one of them it is no figure.
BY = {"contexts": "name", "levels": "name", "contexts_course": "name", "heatmap": "persona", "timing": "persona",
      "category": "category", "role": "role", "predictors": "predictor", "partials": "held", "layers": "layer"}  # fmt: skip


def charts(analysis: Analysis, inputs: ReportInput | None = None) -> dict[str, alt.Chart]:
    """Altair charts by name: "scatter", "heatmap-marker", ... A figure without records is left out."""
    given = inputs or ReportInput()
    chosen = headline_outcomes(analysis, given.picked_configs)
    names = frames.arms(analysis, chosen)
    found: dict[str, Figure] = {}
    found.update(_scatter(analysis, given, chosen, names))
    for headline in chosen:
        found.update(_of_behavior(analysis, given, headline, names))
    found.update(_losses(given))
    return {name: cast("alt.Chart", chart) for name, chart in found.items()}


def _scatter(
    analysis: Analysis, inputs: ReportInput, chosen: list[HeadlineOutcome], names: list[str]
) -> dict[str, Figure]:
    from bystander.report.figures import scatter

    rows: list[alt.FacetChart] = []
    for headline in chosen:
        frame = frames.scatter(analysis, inputs, headline, names)
        if frame.filter(kind="persona").height:
            title = readable(headline.behavior) if len(chosen) > 1 else ""
            rows.append(scatter.scatter(frame, headline, title=title))
    return {"scatter": scatter.grid(rows, names)} if rows else {}


def _of_behavior(
    analysis: Analysis, inputs: ReportInput, headline: HeadlineOutcome, names: list[str]
) -> dict[str, Figure]:
    """Figures drawn once per behavior; in the page a switch between behaviors."""
    from bystander.report.figures import breakdown, contexts, dose, heat, sweep, training

    drawn: dict[str, tuple[pl.DataFrame, Callable[[pl.DataFrame], Figure]]] = {
        "levels": (
            frames.levels(analysis, headline, names),
            lambda rows: contexts.before_after(rows, headline, names, least=150),
        ),
        "contexts": (
            frames.contexts(analysis, headline, names),
            lambda rows: contexts.before_after(rows, headline, names),
        ),
        "contexts_course": (
            frames.contexts_course(analysis, headline, names),
            lambda rows: contexts.course(rows, headline, names),
        ),
        "heatmap": (frames.heat(analysis, inputs, headline, names), lambda rows: heat.heat(rows, headline, names)),
        "quintiles": (
            frames.quintiles(analysis, headline, names),
            lambda rows: training.quintiles(rows, headline, names),
        ),
        "dose": (frames.dose(analysis, headline, names), lambda rows: dose.dose(rows, headline, names)),
        "timing": (frames.timing(analysis, headline, names), lambda rows: training.timing(rows, headline, names)),
        "category": (
            frames.category_rows(analysis.categories, headline, names),
            lambda rows: breakdown.groups(rows, headline, names, "category"),
        ),
        "role": (
            frames.category_rows(analysis.roles, headline, names),
            lambda rows: breakdown.groups(rows, headline, names, "role"),
        ),
        "layers": (frames.layers(analysis, headline, names), lambda rows: breakdown.layers(rows, names)),
        "predictors": (frames.predictors(analysis, headline, names), lambda rows: breakdown.predictors(rows, names)),
        "partials": (frames.partials(analysis, headline, names), lambda rows: breakdown.partials(rows, names)),
    }
    found = {
        _name(kind, headline.behavior): draw(rows) for kind, (rows, draw) in drawn.items() if _compares(kind, rows)
    }
    swept = frames.phase(analysis, headline)
    for source, rows in swept.items():
        found[_name("phase", headline.behavior, source if len(swept) > 1 else "")] = sweep.phase(rows, headline)
    return found


def _compares(kind: str, rows: pl.DataFrame) -> bool:
    """Whether there is anything to compare: a chart of one row is a number, which stands in the table."""
    return rows.height > 0 and (kind not in BY or rows[BY[kind]].n_unique() > 1)


def _name(*parts: str) -> str:
    """A name that is safe as a file's: what is not a letter, digit, dot or underscore becomes an underscore."""
    return "-".join(re.sub(r"[^\w.]", "_", part, flags=re.ASCII).lstrip(".") for part in parts if part)


def _losses(inputs: ReportInput) -> dict[str, Figure]:
    from bystander.report.figures import training

    frame = frames.losses(inputs)
    return {"losses": training.losses(frame)} if frame.height else {}
