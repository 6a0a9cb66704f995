"""The whole analysis, stage by stage: pairs -> leakage -> similarity correlations -> over sources -> verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any, TypeVar

import numpy as np
import polars as pl

from bystander.analysis.consistency import refuse_spellings
from bystander.analysis.declared import Declared, all_declared, primary_outcome
from bystander.analysis.grid import PairedGrid
from bystander.analysis.hypotheses import HYPOTHESES, Hypothesis
from bystander.analysis.keys import BENIGN, MIRRORED
from bystander.analysis.pairs import Paired, paired, prepared
from bystander.analysis.predictors import Covariates, SimilarityTable, covariates
from bystander.analysis.results import Analysis
from bystander.analysis.schemas import ROWS, TableRows, table_of
from bystander.analysis.settings import AnalysisSettings
from bystander.analysis.stats.multiplicity import adjusted
from bystander.analysis.tables.captured import captured_row, groups_of
from bystander.analysis.tables.checks import check_rows, counted
from bystander.analysis.tables.dose import dose_rows
from bystander.analysis.tables.equivalence import equivalence_rows
from bystander.analysis.tables.evolution import evolution_rows, quintile_rows, quintiles_of, similarity_of, trajectories
from bystander.analysis.tables.groups import category_rows, role_rows
from bystander.analysis.tables.half_captured import CapturedSource, with_halves
from bystander.analysis.tables.leakage import leakage_rows, unit_estimates
from bystander.analysis.tables.leakage_ratio import leakage_ratio_row
from bystander.analysis.tables.phase import phase_row
from bystander.analysis.tables.pooled import PooledRow, pooled_rows
from bystander.analysis.tables.power import power_rows
from bystander.analysis.tables.similarity_correlation import SimilarityCorrelationRow, similarity_correlation_rows
from bystander.analysis.tables.skill import asymmetry_rows, skill_rows
from bystander.analysis.tables.timing import dynamics_rows, timing_correlation_rows
from bystander.analysis.verdicts import verdicts
from bystander.core.errors import few_names
from bystander.core.metrics import is_control
from bystander.core.records import Verdict

Test = TypeVar("Test", SimilarityCorrelationRow, PooledRow)
FEW_CORRELATIONS = 2_000  # up to so many, undeclared outcomes get the permutations and resamples of declared ones


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
    table, notes = prepared(measurements, personas)
    known, similar = covariates(personas), SimilarityTable.read(similarities)
    refuse_spellings(table["persona"].unique().to_list(), known.category, similar.personas)
    counts, pairs = counted(table), paired(table)
    del table  # its values are in the pairs
    whole = list(pairs.grids())
    rows = final_rows(whole, similar, known, settings, hypotheses)
    rows.checks = check_rows(whole, counts, settings)
    add_over_time(rows, pairs, whole, similar, known, settings)
    found = verdicts(rows, whole, hypotheses, settings)
    notes += [*_left_out(whole, settings), *_unmeasured(pairs, whole)]
    return packed(rows, settings, notes, found)


def final_rows(
    whole: Sequence[PairedGrid],
    similarities: SimilarityTable,
    known: Covariates,
    settings: AnalysisSettings,
    hypotheses: Sequence[Hypothesis] = (),
) -> TableRows:
    """Rows of every table that needs the last checkpoint only; the others are there and empty."""
    rows = TableRows()
    declared = all_declared(whole, hypotheses, settings)
    tested = {(test.behavior, test.outcome) for test in declared}
    claimed_grids = [grid for grid in whole if not is_control(*grid.outcome)]
    many = len(claimed_grids) * len(similarities.predictors) > FEW_CORRELATIONS
    undeclared = settings.exploratory if many else settings
    captured: list[CapturedSource] = []
    for grid in whole:
        claimed = not is_control(*grid.outcome)
        people, bare = groups_of(grid, settings)
        for seed, part in parts(grid):
            units = unit_estimates(part, settings)
            groups = (people, bare) if seed is None and claimed else ()
            rows.leakage += leakage_rows(part, units, seed, known.category, settings, groups)
            rows.leakage_ratio.append(leakage_ratio_row(part, seed, known, settings))
            rows.categories += category_rows(part, units, seed, known, settings)
            rows.roles += role_rows(part, units, seed, settings)
            if claimed:
                own = people if seed is None else None
                named = not grid.unit or (seed is None and (grid.training.behavior, grid.outcome) in tested)
                effort = settings if named else undeclared
                rows.similarity_correlation += similarity_correlation_rows(part, seed, similarities, known, effort, own)
        if claimed and grid.training.arm != BENIGN:
            captured.append(CapturedSource(grid, captured_row(grid, people, bare, settings), people))
    rows.captured, rows.captured_over_sources = with_halves(captured, similarities, settings)
    _add_declared(rows, whole, similarities, known, settings, declared)
    rows.similarity_correlation = _corrected(rows.similarity_correlation, declared, settings)
    pooled = pooled_rows(claimed_grids, similarities, known, settings, undeclared, tested if whole[0].unit else None)
    rows.pooled = _corrected(pooled, declared, settings)
    return rows


def _add_declared(
    rows: TableRows, whole: Sequence[PairedGrid], similarities: SimilarityTable, known: Covariates,
    settings: AnalysisSettings, declared: Sequence[Declared],
) -> None:  # fmt: skip
    """Add the tables that are made for declared outcomes, or for each behavior's first."""
    tested = {(test.behavior, test.outcome): test.bound for test in declared}
    for grid in whole:
        behavior = grid.training.behavior
        first = (primary_outcome(whole, behavior) or grid.outcome) == grid.outcome
        if first:
            rows.phase.append(phase_row(grid, whole, similarities, known, settings))
        if first or (behavior, grid.outcome) in tested:
            rows.power += power_rows(grid, known, settings)
    rows.equivalence = equivalence_rows(rows.leakage_ratio, tested)
    groups: dict[tuple[str, ...], list[PairedGrid]] = {}
    for grid in whole:
        if (grid.training.behavior, grid.outcome) in tested and grid.training.arm != BENIGN:
            behavior, _, arm, config = grid.training.design
            groups.setdefault((behavior, arm, config, *grid.outcome), []).append(grid)
    for members in groups.values():
        rows.skill += skill_rows(members, similarities, known, settings)
        rows.asymmetry += asymmetry_rows(members, settings)


def _corrected(rows: Sequence[Test], declared: Sequence[Declared], settings: AnalysisSettings) -> list[Test]:
    """The rows with what was pre-registered and p corrected for many tests. A declared test is over seeds, of the declared
    predictor and layer, outcome, arm and configuration. Of `p_specific`; where not all personas' similarities are known, of
    the permutation of personas."""
    p = np.array([_tested_p(row) for row in rows], dtype=float)
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


def _tested_p(row: SimilarityCorrelationRow | PooledRow) -> float:
    if np.isfinite(row.p_specific):
        return row.p_specific
    return row.p_matrix if isinstance(row, PooledRow) else row.p


def add_over_time(
    rows: TableRows,
    pairs: Paired,
    whole: Sequence[PairedGrid],
    similarities: SimilarityTable,
    known: Covariates,
    settings: AnalysisSettings,
) -> None:
    """Add the tables that need every checkpoint. `whole` are the grids of the last one."""
    steps = pairs.checkpoints
    watched = [(step, whole if pairs.one_end and step == steps[-1] else list(pairs.grids(step))) for step in steps]
    found = trajectories(watched)
    for trajectory in found:
        similarity = similarity_of(trajectory, similarities, settings)
        fifth = quintiles_of(trajectory, similarity, settings)
        rows.evolution += evolution_rows(trajectory, similarity, fifth, known, settings)
        timed = dynamics_rows(trajectory, similarity, known)
        rows.dynamics += timed
        rows.timing_correlation += timing_correlation_rows(trajectory, timed, settings)
        rows.quintiles += quintile_rows(trajectory, fifth)
    coupled = [one for one in found if not is_control(*one.last.outcome) and one.last.training.arm != BENIGN]
    rows.dose, rows.matched_dose = dose_rows(coupled, settings)


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


def _unmeasured(pairs: Paired, whole: Sequence[PairedGrid]) -> list[str]:
    """Who was measured before training and not after it, or at some checkpoints and not at others: named, not dropped."""
    notes: dict[str, None] = {}
    for grid in whole:
        said = ", ".join(part for part in (*grid.training.design, *grid.outcome) if part)
        measured = {name for kind, name in zip(grid.kinds, grid.names, strict=True) if kind == "persona"}
        lost = [name for name in pairs.people(grid.outcome) if name not in measured]
        if lost:
            notes[
                f"{said}: {len(lost)} personas were measured before training and never after it: {few_names(lost)}"
            ] = None
        gone = pairs.lacking(grid.training.design, grid.outcome)
        if gone:
            notes[f"{said}: measured during training at some checkpoints and not at others: {few_names(gone)}"] = None
        if grid.training.arm == MIRRORED and grid.benign is None:
            notes["no benign arm: leakage is the change from the untrained model, and no claim is confirmed by it"] = (
                None
            )
    return list(notes)


def parts(grid: PairedGrid) -> Iterable[tuple[int | None, PairedGrid]]:
    """The pooled grid first; then each seed where there are two or more."""
    yield None, grid
    if len(grid.seeds) > 1:
        for index, seed in enumerate(grid.seeds):
            yield seed, grid.one_seed(index)
