"""The phase diagram: what a sweep of learning rate and epochs did to the source, the bystanders and rho."""

from __future__ import annotations

import altair as alt
import polars as pl

from bystander.report.figures import shared
from bystander.report.headline import HeadlineOutcome
from bystander.report.labels import UNITS, unit_of

CELL = 46  # px; wide enough for a number of four characters


def phase(frame: pl.DataFrame, headline: HeadlineOutcome) -> alt.ConcatChart:
    """Four maps over learning rate x epochs; a cross marks designs whose control metric broke. `frame`: `frames.phase`."""
    unit = UNITS.get(unit_of(headline.probe, headline.metric), "")
    limit = float(
        frame.select(pl.max_horizontal(pl.col("source_effect", "mean_bystander", "max_bystander").abs())).max().item()
        or 1
    )
    suffix = f" ({unit})" if unit else ""
    maps = [
        _map(frame, "source_effect", f"Source{suffix}", limit),
        _map(frame, "mean_bystander", f"Mean bystander{suffix}", limit),
        _map(frame, "max_bystander", f"Largest bystander{suffix}", limit),
        _map(frame, "rho", "Similarity gradient rho", 1.0),
    ]
    chart = alt.concat(*maps, columns=4, spacing=26).resolve_scale(color="independent")
    chart.usermeta = {"gutter": 60, "least": 210, "columns": 4}
    return chart


def _map(frame: pl.DataFrame, value: str, title: str, limit: float) -> alt.LayerChart:
    rates = sorted({(row["lr"], row["rate"]) for row in frame.iter_rows(named=True)})
    x = alt.X("epochs:O", title="Epochs", axis=alt.Axis(labelAngle=0, format="~g"))
    y = alt.Y("rate:O", title="Learning rate", sort=[name for _, name in reversed(rates)])
    color = alt.Color(
        f"{value}:Q", scale=alt.Scale(domain=[-limit, 0, limit], range="diverging", clamp=True), legend=None
    )
    text = ".2~f" if limit <= 1 else ".3~r"
    tooltip = [
        alt.Tooltip("config:N", title="config"),
        alt.Tooltip("source_effect:Q", title="source", format="+.3~r"),
        alt.Tooltip("mean_bystander:Q", title="mean bystander", format="+.3~r"),
        alt.Tooltip("max_bystander:Q", title="largest bystander", format="+.3~r"),
        alt.Tooltip("max_persona:N", title="which"),
        alt.Tooltip("rho:Q", title="rho", format=".2f"),
        alt.Tooltip("p:Q", title="permutation p", format=".4~f"),
        alt.Tooltip("control_change:Q", title="control changed by", format="+.3~r"),
        alt.Tooltip("broke:N", title="broke"),
        alt.Tooltip("record:N", title="record"),
    ]
    base = alt.Chart(frame)
    cells = base.mark_rect(tooltip=True).encode(x=x, y=y, color=color, tooltip=tooltip)
    number = f"format(datum.{value}, '{text}')"
    known = base.transform_filter(f"isValid(datum.{value})").transform_calculate(
        words=f"{number} + (datum.broke ? ' ×' : '')"  # said in the cell itself: color alone would not print
    )
    strong = f"abs(datum.{value}) > {0.6 * limit:g}"
    pale = (
        known.transform_filter(f"!({strong})").mark_text(style="value", tooltip=None).encode(x=x, y=y, text="words:N")
    )
    full = known.transform_filter(strong).mark_text(style="value-strong", tooltip=None).encode(x=x, y=y, text="words:N")
    return shared.layered(cells, pale, full, title=title, width=alt.Step(CELL), height=alt.Step(30))
