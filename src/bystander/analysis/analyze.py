"""The whole analysis, stage by stage: pairs -> leakage -> similarity correlations -> over sources -> verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any, TypeVar

import numpy as np
import polars as pl

from bystander.analysis.declared import Declared, all_declared, primary_outcome
from bystander.analysis.hypotheses import HYPOTHESES, Hypothesis
from bystander.analysis.keys import KEYS, OUTCOME
from bystander.analysis.pairs import PairedGrid, grids, paired, prepared
from bystander.analysis.predictors import Covariates, SimilarityTable, covariates
from bystander.analysis.results import Analysis
from bystander.analysis.schemas import ROWS, TableRows, table_of
from bystander.analysis.settings import AnalysisSettings
from bystander.analysis.stats.multiplicity import adjusted
from bystander.analysis.tables.checks import check_rows
from bystander.analysis.tables.evolution import evolution_rows, quintile_rows, trajectories
from bystander.analysis.tables.groups import category_rows, role_rows
from bystander.analysis.tables.leakage import leakage_rows, unit_estimates
from bystander.analysis.tables.leakage_ratio import leakage_ratio_row
from bystander.analysis.tables.phase import phase_row
from bystander.analysis.tables.pooled import PooledRow, pooled_rows
from bystander.analysis.tables.power import power_rows
from bystander.analysis.tables.similarity_correlation import SimilarityCorrelationRow, similarity_correlation_rows
from bystander.analysis.tables.timing import dynamics_rows, timing_correlation_rows
from bystander.analysis.verdicts import verdicts
from bystander.core.records import Verdict

Test = TypeVar("Test", SimilarityCorrelationRow, PooledRow)


def analyze(
    measurements: pl.DataFrame,
    similarities: pl.DataFrame,
    personas: pl.DataFrame,
    *,
    settings: AnalysisSettings | None = None,
    hypotheses: Sequence[Hypothesis] = HYPOTHESES,
) -> Analysis:
    """Every table and verdict of a study from its records.

    `measurements`, `similarities`, `personas` have the columns of `core.records.Measurement`, `Similarity` and
    `PersonaFacts`. Raises DataError for tables that contradict themselves (see `pairs.prepared`).
    """
    settings = settings or AnalysisSettings()
    table, notes = prepared(measurements)
    known, similar = covariates(personas), SimilarityTable.read(similarities)
    pairs = paired(table)
    whole = list(grids(pairs))
    rows = final_rows(whole, similar, known, settings, hypotheses)
    rows.checks = check_rows(whole, table, settings)
    add_over_time(rows, pairs, whole, similar, known, settings)
    found = verdicts(rows, whole, hypotheses, settings)
    return packed(rows, settings, [*notes, *_left_out(whole, settings)], found)


def final_rows(
    whole: Sequence[PairedGrid],
    similarities: SimilarityTable,
    known: Covariates,
    settings: AnalysisSettings,
    hypotheses: Sequence[Hypothesis] = (),
) -> TableRows:
    """Rows of every table that needs the last checkpoint only; the others are there and empty."""
    rows = TableRows()
    for grid in whole:
        for seed, part in parts(grid):
            units = unit_estimates(part, settings)
            rows.leakage += leakage_rows(part, units, seed, known.category, settings)
            rows.similarity_correlation += similarity_correlation_rows(part, seed, similarities, known, settings)
            rows.leakage_ratio.append(leakage_ratio_row(part, seed, known, settings))
            rows.categories += category_rows(part, units, seed, known, settings)
            rows.roles += role_rows(part, units, seed, settings)
    declared = all_declared(whole, hypotheses, settings)
    tested = {(test.behavior, test.outcome) for test in declared}
    for grid in whole:
        behavior = grid.training.behavior
        first = (primary_outcome(whole, behavior) or grid.outcome) == grid.outcome
        if first:
            rows.phase.append(phase_row(grid, whole, similarities, known, settings))
        if first or (behavior, grid.outcome) in tested:
            rows.power += power_rows(grid, known, settings)
    rows.similarity_correlation = _corrected(rows.similarity_correlation, declared, settings)
    rows.pooled = _corrected(pooled_rows(whole, similarities, known, settings), declared, settings)
    return rows


def _corrected(rows: Sequence[Test], declared: Sequence[Declared], settings: AnalysisSettings) -> list[Test]:
    """The rows with what was pre-registered and p corrected for many tests. A declared test is over seeds, of the declared
    predictor and layer, outcome, arm and configuration."""
    p = np.array([row.p_matrix if isinstance(row, PooledRow) else row.p for row in rows], dtype=float)
    whole = np.array([isinstance(row, PooledRow) or row.seed is None for row in rows], dtype=bool)
    predicted = settings.layer is not None
    registered = np.array(
        [
            predicted
            and settings.declares(row.method, row.layer)
            and over_seeds
            and any(test.names(row) for test in declared)
            for row, over_seeds in zip(rows, whole, strict=True)
        ],
        dtype=bool,
    )
    columns = zip(rows, registered, *adjusted(p, registered, whole), strict=True)
    return [
        replace(row, preregistered=bool(is_registered), p_holm=float(p_holm), p_bh=float(p_bh))
        for row, is_registered, p_holm, p_bh in columns
    ]


def add_over_time(
    rows: TableRows,
    pairs: pl.DataFrame,
    whole: Sequence[PairedGrid],
    similarities: SimilarityTable,
    known: Covariates,
    settings: AnalysisSettings,
) -> None:
    """Add the tables that need every checkpoint. `whole` are the grids of the last one."""
    ends = pairs.group_by([*KEYS, "seed", *OUTCOME]).agg(pl.col("checkpoint").max())["checkpoint"].unique()
    steps = [float(step) for step in pairs["checkpoint"].unique().sort() if step > 0]
    together = ends.len() == 1  # every training is at the same end
    watched = [(step, whole if together and step == steps[-1] else list(grids(pairs, step))) for step in steps]
    for trajectory in trajectories(watched):
        rows.evolution += evolution_rows(trajectory, similarities, known, settings)
        found = dynamics_rows(trajectory, similarities, known, settings)
        rows.dynamics += found
        rows.timing_correlation += timing_correlation_rows(trajectory, found, settings)
        rows.quintiles += quintile_rows(trajectory, similarities, settings)


def packed(
    rows: TableRows, settings: AnalysisSettings, notes: Sequence[str], found: Sequence[Verdict] = ()
) -> Analysis:
    """The result from its rows."""
    plain = {name: ", ".join(value) if isinstance(value, tuple) else value for name, value in asdict(settings).items()}
    tables: dict[str, Any] = {name: table_of(getattr(rows, name), row) for name, row in ROWS.items()}
    return Analysis(verdicts=tuple(found), notes=tuple(notes), settings=plain, **tables)


def _left_out(whole: Sequence[PairedGrid], settings: AnalysisSettings) -> list[str]:
    """Who is in no similarity correlation because of its role, by training design."""
    notes: dict[str, None] = {}
    for grid in whole:
        behavior, source, arm, config = grid.training.design
        names = [
            name
            for kind, name, role in zip(grid.kinds, grid.names, grid.roles, strict=True)
            if kind == "persona" and role not in settings.bystander_roles and role != "source"
        ]
        if names:
            design = ", ".join(part for part in (behavior, source, arm, config) if part)
            notes[f"{design}: trained, so in no gradient: {', '.join(names)}"] = None
    return list(notes)


def parts(grid: PairedGrid) -> Iterable[tuple[int | None, PairedGrid]]:
    """The pooled grid first; then each seed where there are two or more."""
    yield None, grid
    if len(grid.seeds) > 1:
        for index, seed in enumerate(grid.seeds):
            yield seed, grid.one_seed(index)
