"""The phase diagram: what each recipe of a sweep did to the source, to the bystanders and to the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import polars as pl

from bystander.analysis import keys
from bystander.analysis.grid import PairedGrid
from bystander.analysis.keys import DesignRow
from bystander.analysis.predictors import Covariates, SimilarityTable
from bystander.analysis.settings import AnalysisSettings
from bystander.analysis.stats.means import mean_of
from bystander.analysis.stats.ranks import permutation_p, spearman
from bystander.analysis.tables.control import control_of
from bystander.analysis.tables.sample import sample_of, source_change
from bystander.core.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseRow(DesignRow):
    """One row per training design of a sweep, pooled over seeds."""

    source_effect: Annotated[float, "the source's own leakage"]
    mean_bystander: Annotated[float, "mean leakage of the held-out bystanders"] = np.nan
    max_bystander: Annotated[float, "leakage of the bystander that got most"] = np.nan
    max_persona: Annotated[str | None, "which one that is"] = None
    n: keys.PersonaCount
    rho: Annotated[float, "rank correlation of leakage with similarity, by the declared predictor"] = np.nan
    p: Annotated[float, "two-sided, personas permuted"] = np.nan
    control: Annotated[str, "the control metric, choice/hellaswag/accuracy; empty where none was measured"]
    control_change: Annotated[float, "its change over the held-out bystanders, not signed"]
    control_source: Annotated[float, "its change in the source"]
    broke: Annotated[
        bool | None,
        "whether the interval of its fall, of the bystanders or the source, lies beyond the limit; empty: not measured",
    ]
    control_state: Annotated[str, "broke, intact (shown not to fall so far) or open"]


def phase_row(
    grid: PairedGrid, whole: Sequence[PairedGrid], similarities: SimilarityTable, known: Covariates,
    settings: AnalysisSettings,
) -> PhaseRow:  # fmt: skip
    """One point of the phase diagram: what source and bystanders got under this recipe, and whether the model broke."""
    sample, names, _ = sample_of(grid, known, settings)
    own = source_change(grid, settings)
    control = control_of(grid, whole, settings)
    leakage = sample.leakage
    worst = int(np.argmax(leakage)) if names else -1
    predictors = similarities.of(grid.training.source, names)
    values = None if settings.layer is None else predictors.of(settings.method, settings.layer)
    correlated = values is not None and np.isfinite(values).all() and len(names) > 3
    x = np.zeros((1, len(names))) if values is None else values[None]
    return PhaseRow(
        record=grid.record("phase", None), training=grid.training, outcome=grid.outcome, n=len(names),
        source_effect=float(mean_of(own)) if own is not None else np.nan,
        mean_bystander=float(leakage.mean()) if names else np.nan,
        max_bystander=float(leakage[worst]) if names else np.nan,
        max_persona=names[worst] if names else None,
        rho=float(spearman(x, leakage)[0]) if correlated else np.nan,
        p=float(permutation_p(x, leakage, settings.permutations, settings.seed)[0]) if correlated else np.nan,
        control=control.name, control_change=control.bystanders, control_source=control.source,
        broke=control.broke, control_state=control.state or "",
    )  # fmt: skip


def phase_of_table(
    frame: pl.DataFrame,
    *,
    rate: str = "marker_rate",
    control: str = "",
    control_limit: float = AnalysisSettings().control_limit,
) -> pl.DataFrame:
    """The phase diagram of anyone's sweep: columns source, lr, epochs, persona and `rate`, one row per persona and recipe.

    -> source, lr, epochs, source_effect (the source's own rate), mean_bystander, max_bystander, max_persona, n, and, where
    `control` names a column, control (mean over personas), control_change (from the best recipe) and broke. Raises
    DataError for missing columns, a persona that is there twice, and recipes without the source.
    """
    needed = ["source", "lr", "epochs", "persona", rate, *([control] if control else [])]
    missing = [name for name in needed if name not in frame.columns]
    if missing:
        raise DataError(f"the sweep lacks the columns {', '.join(missing)}; it has {', '.join(frame.columns)}")
    recipe = ["source", "lr", "epochs"]
    twice = frame.filter(pl.struct(*recipe, "persona").is_duplicated())
    if twice.height:
        raise DataError(f"{twice.height} rows of the sweep share source, lr, epochs and persona; first {twice.row(0)}")
    other = pl.col("persona") != pl.col("source")
    found = frame.group_by(recipe).agg(
        pl.col(rate).filter(~other).first().alias("source_effect"),
        pl.col(rate).filter(other).mean().alias("mean_bystander"),
        pl.col(rate).filter(other).max().alias("max_bystander"),
        pl.col("persona").filter(other).get(pl.col(rate).filter(other).arg_max()).alias("max_persona"),
        other.sum().cast(pl.Int64).alias("n"),
        *([pl.col(control).mean().alias("control")] if control else []),
    )
    without = found.filter(pl.col("source_effect").is_null())
    if without.height:
        raise DataError(
            f"{without.height} recipes have no row of the source itself; first {without.select(recipe).row(0)}"
        )
    if control:
        change = pl.col("control") - pl.col("control").max().over("source")
        found = found.with_columns(change.alias("control_change"), (change < -control_limit).alias("broke"))
    return found.sort(recipe)
