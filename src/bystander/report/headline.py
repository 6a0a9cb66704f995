"""Which of the many outcomes, arms and predictors the report shows first. A choice among records; nothing is computed.

The order of preference is the study's own: what was pre-registered, then `core.metrics.outcomes_of`, then what is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import polars as pl

from bystander.analysis.results import Analysis
from bystander.core import doors
from bystander.core.metrics import outcomes_of


@dataclass(frozen=True, slots=True)
class HeadlineOutcome:
    """The outcome, arm, config and predictor that a behavior is shown by."""

    behavior: str
    arm: str
    config: str
    probe: str
    dataset: str
    metric: str
    method: str
    layer: int

    def rows(self, table: pl.DataFrame) -> pl.DataFrame:
        """The rows of an analysis table that belong to this headline, pooled over seeds."""
        chosen = table.filter(pl.col("seed").is_null()) if "seed" in table.columns else table
        for name in ("behavior", "arm", "config", "probe", "dataset", "metric"):
            chosen = chosen.filter(pl.col(name) == getattr(self, name))
        return chosen

    def predicted(self, table: pl.DataFrame) -> pl.DataFrame:
        """`rows`, and of them those of the primary predictor and layer."""
        return self.rows(table).filter((pl.col("method") == self.method) & (pl.col("layer") == self.layer))

    def in_arm(self, arm: str) -> HeadlineOutcome:
        """The same in another arm."""
        return replace(self, arm=arm)


def headline_outcomes(analysis: Analysis, configs: Mapping[str, str]) -> list[HeadlineOutcome]:
    """One headline for each behavior that was measured, in a fixed order. `configs`: behavior -> config picked by rule."""
    found = cast("list[str]", analysis.leakage["behavior"].unique().to_list())
    order = {name: position for position, name in enumerate(doors.names("behavior"))}
    return [
        _headline(analysis, behavior, configs.get(behavior))
        for behavior in sorted(found, key=lambda name: (order.get(name, len(order)), name))
    ]


def _headline(analysis: Analysis, behavior: str, config: str | None) -> HeadlineOutcome:
    rows = analysis.leakage.filter(behavior=behavior)
    tests = analysis.similarity_correlation.filter(behavior=behavior)
    registered = tests.filter(pl.col("preregistered").fill_null(False))
    probe, dataset, metric = _outcome(rows, behavior, registered)
    arms = cast("list[str]", rows["arm"].unique(maintain_order=True).to_list())
    arm = registered["arm"][0] if registered.height else "contrastive" if "contrastive" in arms else arms[0]
    offered = cast("list[str]", rows.filter(arm=arm)["config"].unique(maintain_order=True).to_list())
    declared = config if config is not None else registered["config"][0] if registered.height else None
    chosen = declared if declared in offered else offered[0] if offered else ""
    method, layer = _predictor(analysis, registered if registered.height else tests)
    return HeadlineOutcome(behavior, arm, chosen or "", probe, dataset, metric, method, layer)


def _outcome(rows: pl.DataFrame, behavior: str, registered: pl.DataFrame) -> tuple[str, str, str]:
    names = ("probe", "dataset", "metric")
    if registered.height:
        return registered.select(names).row(0)
    measured = list(rows.select(names).unique(maintain_order=True).iter_rows())
    return next((outcome for outcome in outcomes_of(behavior) if outcome in measured), measured[0])


def _predictor(analysis: Analysis, tests: pl.DataFrame) -> tuple[str, int]:
    """That of the study's own tests, where it has any; of the method that was chosen before any other."""
    method = str(analysis.settings.get("method") or "")
    own = tests.filter(method=method)
    rows = own if own.height else tests
    layer = analysis.settings.get("layer")
    return rows.select("method", "layer").row(0) if rows.height else (method, -1 if layer is None else int(layer))


def level_at_start(rows: pl.DataFrame) -> Literal["before", "benign"]:
    """The column in which levels of the leakage table begin: the untrained model's, or, where no row has one since its
    answers were cut off, the benign arm's."""
    return "benign" if rows["before"].is_null().all() and rows["benign"].is_not_null().any() else "before"


UNTOLD = "cannot be told: the interval holds nobody and everybody"  # of whom a training captured


def captures(headline: HeadlineOutcome, table: pl.DataFrame) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of the captured table whose count says something, and the sources of which it cannot be told: the interval
    holds none of the bystanders and all of them, since the source itself hardly leaked."""
    known = [row for row in headline.rows(table).sort("record").to_dicts() if row["captured"] is not None]
    told = [row for row in known if row["low"] != 0 or row["high"] != row["n"] or not row["n"]]
    return told, [str(row["source"] or "the source") for row in known if row not in told]
