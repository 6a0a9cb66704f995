"""Is the instrument sound, and what did the sweep do: failed shares, control metrics, the phase diagram."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from bystander.analysis.pairs import Grid
from bystander.analysis.predictors import Facts, SimilarityTable
from bystander.analysis.settings import KEYS, OUTCOME_KEYS, Settings
from bystander.analysis.stats.intervals import crossed
from bystander.analysis.stats.means import mean_of
from bystander.analysis.stats.ranks import permutation_p, spearman
from bystander.analysis.tables.gradient import sample_of
from bystander.analysis.tables.groups import EVERYTHING, source_change
from bystander.analysis.tables.leakage import names_of, record
from bystander.core import metrics
from bystander.core.errors import DataError

Rows = list[dict[str, object]]
SWEPT = re.compile(r"(?:^|[,; ])\s*(lr|learning_rate|epochs)\s*=\s*([0-9.eE+-]+)")


def is_control(outcome: Sequence[str]) -> bool:
    """Whether the behavior should leave this (probe, dataset, metric) alone."""
    probe, dataset, name = outcome[0], outcome[1], outcome[2]
    return metrics.is_control(probe, dataset, name)


def instrument_rows(whole: Sequence[Grid], table: pl.DataFrame, settings: Settings) -> Rows:
    """Failed shares of every outcome, untrained and trained, and how far each moved over all contexts."""
    counted = table.group_by([*KEYS, *OUTCOME_KEYS]).agg(
        pl.col("rows").sum(), pl.col("bad").sum(), pl.col("refused").sum(), pl.col("value").mean()
    )
    counts = {tuple(row[:7]): row[7:] for row in counted.sort([*KEYS, *OUTCOME_KEYS], nulls_last=True).iter_rows()}
    rows: Rows = []
    for key, (total, bad, refused, mean) in counts.items():
        if key[1] is None:  # the untrained model belongs to no source
            outcome = key[len(KEYS) :]
            names = dict(zip((*KEYS, *OUTCOME_KEYS), ("", "", "", "", *outcome), strict=True))
            label = "/".join(["instrument", "untrained", *outcome])
            rows.append({"record": label, **names, "before": mean, **_failed(outcome, total, bad, refused, settings)})
    for grid in whole:
        total, bad, refused, _ = counts[grid.key + grid.outcome]
        estimate = crossed(grid.after - grid.before, EVERYTHING).within(grid.unit)
        both = np.isfinite(grid.change)
        numbers: dict[str, object] = {
            "before": float(grid.before[both].mean()) if both.any() else None,
            "after": float(grid.after[both].mean()) if both.any() else None,
            "change": estimate.value,
            "low": estimate.low,
            "high": estimate.high,
        }
        label = {"record": record("instrument", grid, None), **names_of(grid, None)}
        rows.append({**label, **numbers, **_failed(grid.outcome, total, bad, refused, settings)})
    return rows


def _failed(outcome: Sequence[str], total: int, bad: int, refused: int, settings: Settings) -> dict[str, object]:
    share = bad / total if total else 0.0
    said = [f"{bad} of {total} values failed ({share:.1%})"] if bad else []
    said += [f"{refused} of {total} have no score (code, a refusal)"] if refused else []
    return {
        "mode": "",
        "control": is_control(outcome),
        "n_values": total,
        "n_failed": bad,
        "n_refused": refused,
        "failed_share": share,
        "limit": settings.failed_limit,
        "status": "refused" if share > settings.failed_limit else "ok",
        "reason": "; ".join(said),
    }


@dataclass(frozen=True, slots=True)
class ControlChange:
    """How far a control metric moved in one training design: raw change, not signed. NaN: not measured there."""

    name: str  # "choice/hellaswag/accuracy"; "" where no control was measured
    bystanders: float
    source: float
    broke: bool | None
    reason: str


NO_CONTROL = ControlChange("", np.nan, np.nan, None, "no control metric was measured")


def control_of(grid: Grid, whole: Sequence[Grid], settings: Settings) -> ControlChange:
    """The control of the same training: HellaSwag's accuracy, and the judged coherence where the outcome is judged.

    The model broke when the control falls, over the held-out bystanders, by more than its limit; coherence also when the
    source's own falls, since an incoherent source is not a misaligned one.
    """
    found = [
        other for other in whole if other.key == grid.key and is_control(other.outcome) and other.outcome[2] != "margin"
    ]
    judged = grid.outcome[0] == "judged"
    found.sort(key=lambda other: (other.outcome[0] != "judged") if judged else (other.outcome[0] == "judged"))
    changes = [_control(other, settings) for other in found]
    broken = [change for change in changes if change.broke]
    return broken[0] if broken else changes[0] if changes else NO_CONTROL


def _control(other: Grid, settings: Settings) -> ControlChange:
    name = "/".join(other.outcome)
    raw = other.after - other.before
    chosen = other.bystanders(settings.gradient_over)
    bystanders = float(mean_of(raw[:, chosen]))
    own = source_change(other, settings)
    source = float(mean_of(own)) * other.direction if own is not None else np.nan
    coherence = other.outcome[2] == "coherent"
    limit = settings.coherence_limit if coherence else settings.control_limit
    watched = {"held-out bystanders": bystanders} | ({"source": source} if coherence else {})
    fell = {who: change for who, change in watched.items() if change < -limit}
    if not any(np.isfinite(change) for change in watched.values()):
        return ControlChange(name, bystanders, source, None, f"{name} has no pair of values")
    reason = ", ".join(f"{name} fell by {-change:.3g} for the {who} (limit {limit:g})" for who, change in fell.items())
    return ControlChange(name, bystanders, source, bool(fell), reason)


def phase_row(
    grid: Grid, whole: Sequence[Grid], similarities: SimilarityTable, facts: Facts, settings: Settings
) -> dict[str, object]:
    """One point of the phase diagram: what source and bystanders got under this recipe, and whether the model broke."""
    sample, names, _ = sample_of(grid, facts, settings)
    own = source_change(grid, settings)
    control = control_of(grid, whole, settings)
    row: dict[str, object] = {
        "record": record("phase", grid, None),
        **names_of(grid, None),
        **_swept(grid.key[3]),
        "source_effect": float(mean_of(own)) if own is not None else None,
        "n": len(names),
        "control": control.name,
        "control_change": control.bystanders,
        "broke": control.broke,
    }
    if names:
        leakage = sample.leakage
        worst = int(np.argmax(leakage))
        row |= {
            "mean_bystander": float(leakage.mean()),
            "max_bystander": float(leakage[worst]),
            "max_persona": names[worst],
        }
        values = similarities.of(grid.key[1], names).of(
            settings.method, -2 if settings.layer is None else settings.layer
        )
        if values is not None and np.isfinite(values).all() and len(names) > 3:
            row["rho"] = float(spearman(values[None], leakage)[0])
            row["p"] = float(permutation_p(values[None], leakage, settings.permutations, settings.seed)[0])
    return row


def _swept(config: str) -> dict[str, object]:
    found = {name: float(value) for name, value in SWEPT.findall(config)}
    return {"learning_rate": found.get("lr", found.get("learning_rate")), "epochs": found.get("epochs")}


def phase_of_table(
    frame: pl.DataFrame,
    *,
    rate: str = "marker_rate",
    control: str = "",
    control_limit: float = Settings().control_limit,
) -> pl.DataFrame:
    """The phase diagram of anyone's sweep: columns source, lr, epochs, persona and `rate`, one row per persona and recipe.

    -> source, lr, epochs, source_effect (the source's own rate), mean_bystander, max_bystander, max_persona, n, and, where
    `control` names a column, control (mean over personas), control_change (from the best recipe) and broke. Raises
    DataError for missing columns, a persona that stands twice, and recipes without the source.
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
