"""The whole analysis, stage by stage: pairs -> leakage -> gradients -> over sources -> verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np
import polars as pl

from bystander.analysis.gradient import gradient_rows, sample_of
from bystander.analysis.groups import category_rows, containment_row, role_rows
from bystander.analysis.leakage import leakage_rows
from bystander.analysis.multiplicity import adjust
from bystander.analysis.pairs import Grid, grids, prepared
from bystander.analysis.pooled import SourceSample, mixed_model, pooled_columns
from bystander.analysis.predictors import Facts, SimilarityTable, facts
from bystander.analysis.results import Analysis, tidy
from bystander.analysis.schemas import TABLES
from bystander.analysis.settings import OUTCOME_KEYS, Settings
from bystander.core.metrics import PRIMARY

Rows = list[dict[str, object]]


def analyze(
    measurements: pl.DataFrame,
    similarities: pl.DataFrame,
    personas: pl.DataFrame,
    *,
    settings: Settings | None = None,
) -> Analysis:
    """Every table and verdict of a study from its records.

    `measurements`, `similarities`, `personas` have the columns of `core.records.Measurement`, `Similarity` and
    `PersonaFacts`. Raises DataError for tables that contradict themselves (see `pairs.prepared`).
    """
    settings = settings or Settings()
    table, notes = prepared(measurements)
    return assembled(list(grids(table)), SimilarityTable.read(similarities), facts(personas), settings, notes)


def assembled(
    whole: Sequence[Grid], similarities: SimilarityTable, known: Facts, settings: Settings, notes: Sequence[str]
) -> Analysis:
    """The tables that need the last checkpoint only."""
    rows: dict[str, Rows] = {name: [] for name in TABLES}
    for grid in whole:
        for seed, part in parts(grid):
            rows["leakage"] += leakage_rows(part, seed, known.category, settings)
            rows["gradient"] += gradient_rows(part, seed, similarities, known, settings)
            rows["containment"].append(containment_row(part, seed, known, settings))
            rows["categories"] += category_rows(part, seed, known, settings)
            rows["roles"] += role_rows(part, seed, known, settings)
    rows["pooled"] = pooled_rows(whole, similarities, known, settings)
    declared = primary_outcomes(whole)
    for name, column in (("gradient", "p"), ("pooled", "p_matrix")):
        for row in rows[name]:
            row["preregistered"] = preregistered(row, declared, settings)
        adjust(rows[name], column)
    return Analysis(
        **{name: tidy(rows[name], TABLES[name]) for name in TABLES},
        notes=tuple(notes),
        settings=_settings(settings),
    )


def parts(grid: Grid) -> Iterable[tuple[int | None, Grid]]:
    """The pooled grid first; then each seed where there are two or more."""
    yield None, grid
    if len(grid.seeds) > 1:
        for index, seed in enumerate(grid.seeds):
            yield seed, grid.one_seed(index)


def primary_outcomes(whole: Sequence[Grid]) -> dict[str, tuple[str, ...]]:
    """Per behavior the outcome that its claim rests on: the first of `core.metrics.PRIMARY` that was measured."""
    measured = {(grid.key[0], grid.outcome) for grid in whole}
    chosen: dict[str, tuple[str, ...]] = {}
    for behavior in sorted({behavior for behavior, _ in measured}):
        for outcome in PRIMARY.get(behavior, ()):
            if (behavior, outcome) in measured:
                chosen[behavior] = outcome
                break
    return chosen


def preregistered(row: Mapping[str, object], declared: Mapping[str, tuple[str, ...]], settings: Settings) -> bool:
    """Whether a row is the test that the study declared: its predictor and layer, the primary outcome, the contrastive arm."""
    return (
        settings.layer is not None
        and row["method"] == settings.method
        and row["layer"] == settings.layer
        and row["arm"] == "contrastive"
        and row.get("seed") is None
        and declared.get(str(row["behavior"])) == tuple(row[name] for name in OUTCOME_KEYS)
    )


def pooled_rows(whole: Sequence[Grid], similarities: SimilarityTable, known: Facts, settings: Settings) -> Rows:
    """Rows of the pooled table: one per behavior, arm, config, outcome and predictor with two sources or more."""
    groups: dict[tuple[object, ...], list[Grid]] = {}
    for grid in whole:
        behavior, _, arm, config = grid.key
        groups.setdefault((behavior, arm, config, *grid.outcome), []).append(grid)
    rows: Rows = []
    for key, members in groups.items():
        names, sources = source_samples(members, similarities, known, settings)
        if len(sources) < 2 or not names:
            continue
        columns = pooled_columns(sources, settings)
        for place, (method, layer) in enumerate(names):
            row: dict[str, object] = {
                "record": "/".join(str(part) or "-" for part in ("pooled", *key, method, layer)),
                **dict(zip(("behavior", "arm", "config", *OUTCOME_KEYS), key, strict=True)),
                "method": method,
                "layer": layer,
                "n_sources": len(sources),
                "n": sum(len(source.names) for source in sources),
                "status": "ok",
                "reason": "",
                **{name: float(column[place]) for name, column in columns.items()},
            }
            if method == settings.method and layer == (layer if settings.layer is None else settings.layer):
                slope = mixed_model(sources, place)
                row |= dict(zip(("slope", "slope_low", "slope_high", "slope_p", "reason"), slope, strict=True))
            rows.append(row)
    return rows


def source_samples(
    members: Sequence[Grid], similarities: SimilarityTable, known: Facts, settings: Settings
) -> tuple[list[tuple[str, int]], list[SourceSample]]:
    """Sources side by side with the predictors that all of them have, over personas that all predictors know."""
    drafts = [(grid, *sample_of(grid, known, settings)) for grid in members]
    found = [
        (sample, names, similarities.of(grid.key[1], names)) for grid, sample, names, _ in drafts if len(names) > 3
    ]
    if not found:
        return [], []
    shared = [name for name in found[0][2].names if all(name in other.names for _, _, other in found)]
    sources: list[SourceSample] = []
    for sample, names, predictors in found:
        values = predictors.values[[predictors.names.index(name) for name in shared]]
        mask = np.isfinite(values).all(axis=0)
        kept = tuple(name for name, keep in zip(names, mask, strict=True) if keep)
        sources.append(SourceSample(kept, sample.pick(mask), values[:, mask]))
    return shared, [source for source in sources if len(source.names) > 3]


def _settings(settings: Settings) -> dict[str, float | int | str | bool | None]:
    plain = asdict(replace(settings))
    return {name: ", ".join(value) if isinstance(value, tuple) else value for name, value in plain.items()}
