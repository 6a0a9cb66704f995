"""The similarity at which half of the bystanders are captured, by source and over sources (`stats.half_capture`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np

from bystander.analysis import keys
from bystander.analysis.grid import PairedGrid
from bystander.analysis.keys import OutcomeKey, OverSourcesRow, TrainingKey, over_sources_key
from bystander.analysis.predictors import SimilarityTable
from bystander.analysis.settings import AnalysisSettings
from bystander.analysis.stats.half_capture import half_capture
from bystander.analysis.stats.means import Floats
from bystander.analysis.tables.captured import CapturedRow, Group


@dataclass(frozen=True, slots=True, kw_only=True)
class CapturedOverSourcesRow(OverSourcesRow):
    """One row per behavior, arm, configuration and outcome: captured bystanders over all sources."""

    against: keys.Against
    n_sources: Annotated[int, "sources whose own leakage can be told from 0"]
    n: Annotated[int, "pairs of source and held-out bystander"]
    captured: Annotated[int, "captured by the estimate"]
    share: Annotated[float, "captured / n"]
    method: keys.PredictorName
    layer: keys.PredictorLayer
    half: Annotated[float, "similarity at which half are captured, common to the sources"]
    half_low: keys.Low
    half_high: keys.High
    half_beyond: keys.HalfBeyond
    half_low_beyond: keys.EndBeyond
    half_high_beyond: keys.EndBeyond
    spread: Annotated[float, "standard deviation of the sources' halves, in the unit of similarity"]
    slope: Annotated[float, "log-odds of being captured for a unit of similarity"]
    status: keys.RowStatus
    reason: keys.RowReason


@dataclass(frozen=True)
class CapturedSource:
    """One training: its row, and of its bystanders with a similarity who is captured."""

    grid: PairedGrid
    row: CapturedRow
    people: Group


def with_halves(
    found: Sequence[CapturedSource], similarities: SimilarityTable, settings: AnalysisSettings
) -> tuple[list[CapturedRow], list[CapturedOverSourcesRow]]:
    """The rows of every training with the similarity at which half are captured, and those over sources.

    By the declared predictor and layer; without a declared layer, nothing.
    """
    groups: dict[tuple[TrainingKey, OutcomeKey], list[CapturedSource]] = {}
    for one in found:
        groups.setdefault((one.grid.training._replace(source=""), one.grid.outcome), []).append(one)
    rows: list[CapturedRow] = []
    over: list[CapturedOverSourcesRow] = []
    for members in groups.values():
        usable = [(one, *known) for one in members if (known := _known(one, similarities, settings)) is not None]
        halves = half_capture([x for _, x, _ in usable], [y for _, _, y in usable]) if usable else None
        for at, (one, similarity, _) in enumerate(usable):
            assert halves is not None
            value, low, high = halves.by_source[at], halves.by_source_low[at], halves.by_source_high[at]
            rows.append(replace(
                one.row, method=settings.method, layer=settings.layer if settings.layer is not None else -1,
                reason=halves.reason, **_half(float(value), float(low), float(high), similarity),
            ))  # fmt: skip
        rows += [one.row for one in members if all(one is not other for other, _, _ in usable)]
        if halves is None:
            continue
        training, outcome = members[0].grid.training, members[0].grid.outcome
        captured, n = (int(sum(values)) for values in ([y.sum() for _, _, y in usable], [y.size for _, _, y in usable]))
        over.append(CapturedOverSourcesRow(
            **over_sources_key("captured_over_sources", training, outcome),
            against=members[0].grid.against, n_sources=len(usable), n=n, captured=captured, share=captured / n,
            method=settings.method, layer=settings.layer if settings.layer is not None else -1, spread=halves.spread,
            slope=halves.slope, status="constant" if halves.reason else "ok", reason=halves.reason,
            **_half(halves.value, halves.low, halves.high, np.concatenate([x for _, x, _ in usable])),
        ))  # fmt: skip
    order = {one.row.record: place for place, one in enumerate(found)}
    return sorted(rows, key=lambda row: order[row.record]), over


def _half(value: float, low: float, high: float, similarity: Floats) -> dict[str, Any]:
    """The half with its interval, and which of the three lie beyond the similarities it was read from: the curve goes on
    there, and past what the predictor can be."""
    found: dict[str, Any] = {"half": value, "half_low": low, "half_high": high}
    if not np.isfinite(value):
        return found | dict.fromkeys(("half_beyond", "half_low_beyond", "half_high_beyond"))
    least, most = float(similarity.min()), float(similarity.max())
    return found | {f"{name}_beyond": not least <= end <= most for name, end in found.items()}


def _known(
    one: CapturedSource, similarities: SimilarityTable, settings: AnalysisSettings
) -> tuple[Floats, np.ndarray[tuple[int], np.dtype[np.bool_]]] | None:
    """Similarity of the bystanders that have one, and who of them is captured; None where nobody can be."""
    captures = one.people.captures
    if captures is None or captures.reason or settings.layer is None:
        return None
    similar = similarities.to(one.grid.training.source, settings.method, settings.layer)
    places = [place for place, name in enumerate(one.people.names) if name in similar]
    if not places:
        return None
    return np.array([similar[one.people.names[place]] for place in places]), captures.captured[places]
