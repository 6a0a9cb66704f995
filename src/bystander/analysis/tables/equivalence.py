"""\"No leakage\" as a claim: the smallest mean change of the bystanders that the data exclude, by source and over sources.

Estimand: the bystanders' mean leakage of `leakage_ratio`; over sources the mean over these very sources, its error the mean of
theirs, as if they erred together: the questions are shared, and what else is, is not known. Conservative.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np

from bystander.analysis import keys
from bystander.analysis.keys import OutcomeKey, OverSourcesRow, over_sources_key
from bystander.analysis.stats.equivalence import equivalence
from bystander.analysis.stats.intervals import Estimate
from bystander.analysis.tables.leakage_ratio import LeakageRatioRow
from bystander.core.metrics import metric


@dataclass(frozen=True, slots=True, kw_only=True)
class EquivalenceRow(OverSourcesRow):
    """One row per training design and declared outcome, and one over its sources: two one-sided tests."""

    source: Annotated[str, "persona that the behavior was coupled to; empty: over all sources"]
    against: keys.Against
    n_sources: Annotated[int, "sources"]
    value: Annotated[float, "mean leakage of the held-out bystanders"]
    low: Annotated[float, "lower end of the 90 % interval: what the one test excludes"]
    high: Annotated[float, "upper end of it: what the other excludes"]
    smallest_excluded: Annotated[float, "the smallest bound within which the mean is shown to lie"]
    bound: Annotated[float, "the hypothesis's threshold; empty where there is none"]
    p: Annotated[float, "larger p of the two tests against that bound; below 0.05 the mean lies within it"]
    sentence: Annotated[str, "the same in words"]


def equivalence_rows(
    ratios: Sequence[LeakageRatioRow], bounds: Mapping[tuple[str, OutcomeKey], float]
) -> list[EquivalenceRow]:
    """Rows of the outcomes (behavior, outcome) in `bounds`, NaN for none; pooled over seeds."""
    groups: dict[tuple[str, ...], list[LeakageRatioRow]] = {}
    for row in ratios:
        if row.seed is None and row.n and (row.training.behavior, row.outcome) in bounds:
            behavior, _, arm, config = row.training.design
            groups.setdefault((behavior, arm, config, *row.outcome), []).append(row)
    rows: list[EquivalenceRow] = []
    for members in groups.values():
        bound = bounds[members[0].training.behavior, members[0].outcome]
        rows += [_row(f"source {one.training.source}", one.training.source, [one], bound) for one in members]
        rows += [_row("all sources", "", members, bound)] if len(members) > 1 else []
    return rows


def _row(name: str, source: str, members: Sequence[LeakageRatioRow], bound: float) -> EquivalenceRow:
    first = members[0]
    known = np.isfinite(bound)
    found = equivalence(mean_estimate([one.bystanders for one in members]), bound if known else np.inf)
    declared = metric(first.outcome.probe, first.outcome.metric) if first.outcome.probe != "table" else None
    unit = {"fraction": "", "nats": " nats", "nats/token": " nats per token", "score": " points"}
    return EquivalenceRow(
        **over_sources_key("equivalence", first.training, first.outcome, name), source=source,
        against=" and ".join(sorted({one.against for one in members})), n_sources=len(members), value=found.value,
        low=found.low, high=found.high, smallest_excluded=found.smallest, bound=bound, p=found.p if known else np.nan,
        sentence=found.sentence(unit[declared.unit] if declared else ""),
    )  # fmt: skip


def mean_estimate(estimates: Sequence[Estimate]) -> Estimate:
    """The mean over these very sources. Its error is the mean of theirs, as if they erred together. Conservative."""
    if len(estimates) == 1:
        return estimates[0]
    value, low, high, error = (
        float(np.mean([getattr(estimate, part) for estimate in estimates]))
        for part in ("value", "low", "high", "standard_error")
    )
    df = float(min(estimate.df for estimate in estimates))
    draft = Estimate(sum(estimate.n for estimate in estimates), value, low, high, error, df, np.nan)
    return replace(draft, p=draft.p_above(0.0))
