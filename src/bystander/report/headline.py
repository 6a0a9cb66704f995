"""Which of the many outcomes, arms and predictors the report shows first. A choice among records; nothing is computed.

The order of preference is the study's own: what was pre-registered, then `core.metrics.outcomes_of`, then what is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import polars as pl

from bystander.analysis.results import Analysis
from bystander.core.metrics import outcomes_of

BEHAVIOR_ORDER = ("marker", "capability", "misalignment", "direct")


@dataclass(frozen=True, slots=True)
class Lead:
    """The outcome, arm, config and predictor that stand for a behavior."""

    behavior: str
    arm: str
    config: str
    probe: str
    dataset: str
    metric: str
    method: str
    layer: int

    def rows(self, table: pl.DataFrame, *, seeds: bool = False) -> pl.DataFrame:
        """The rows of an analysis table that belong to this lead: pooled over seeds unless `seeds`."""
        chosen = table
        for name in ("behavior", "arm", "config", "probe", "dataset", "metric"):
            if name in table.columns:
                chosen = chosen.filter(pl.col(name).fill_null("") == getattr(self, name))
        if "seed" in table.columns and not seeds:
            chosen = chosen.filter(pl.col("seed").is_null())
        return chosen

    def predicted(self, table: pl.DataFrame) -> pl.DataFrame:
        """`rows`, and of them those of the primary predictor and layer."""
        return self.rows(table).filter((pl.col("method") == self.method) & (pl.col("layer") == self.layer))


def leads(analysis: Analysis, configs: Mapping[str, str]) -> list[Lead]:
    """One lead for each behavior that was measured, in a fixed order. `configs`: behavior -> config picked by rule."""
    found = cast("list[str]", analysis.leakage["behavior"].fill_null("").unique().to_list())
    order = {name: position for position, name in enumerate(BEHAVIOR_ORDER)}
    return [
        _lead(analysis, behavior, configs.get(behavior))
        for behavior in sorted(found, key=lambda name: (order.get(name, len(order)), name))
    ]


def _lead(analysis: Analysis, behavior: str, config: str | None) -> Lead:
    rows = analysis.leakage.filter(pl.col("behavior").fill_null("") == behavior)
    tests = analysis.gradient.filter(pl.col("behavior").fill_null("") == behavior)
    registered = tests.filter(pl.col("preregistered").fill_null(False))
    first = (registered if registered.height else tests).head(1).to_dicts()
    probe, dataset, metric = _outcome(rows, behavior, first if registered.height else [])
    arms = cast("list[str]", rows["arm"].fill_null("").unique(maintain_order=True).to_list())
    arm = registered["arm"][0] if registered.height else "contrastive" if "contrastive" in arms else arms[0]
    rows = rows.filter(pl.col("arm").fill_null("") == arm)
    offered = cast("list[str]", rows["config"].fill_null("").unique(maintain_order=True).to_list())
    declared = config if config is not None else registered["config"][0] if registered.height else None
    chosen = declared if declared in offered else offered[0] if offered else ""
    method, layer = _predictor(analysis, first)
    return Lead(behavior, arm or "", chosen or "", probe, dataset, metric, method, layer)


def _outcome(rows: pl.DataFrame, behavior: str, registered: list[dict[str, object]]) -> tuple[str, str, str]:
    if registered:
        return (str(registered[0]["probe"]), str(registered[0]["dataset"]), str(registered[0]["metric"]))
    there = list(rows.select("probe", "dataset", "metric").unique(maintain_order=True).iter_rows())
    for outcome in outcomes_of(behavior):
        if outcome in there:
            return outcome
    probe, dataset, metric = there[0]
    return (probe or "", dataset or "", metric or "")


def _predictor(analysis: Analysis, first: list[dict[str, object]]) -> tuple[str, int]:
    if first:
        return str(first[0]["method"]), int(cast("int", first[0]["layer"]))
    return str(analysis.settings.get("method", "cosine")), int(cast("int", analysis.settings.get("layer", -1)))
