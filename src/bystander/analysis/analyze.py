"""The whole analysis, stage by stage: pairs -> leakage -> gradients -> over sources -> verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

import numpy as np
import polars as pl

from bystander.analysis.declared import Declared, all_declared, primary_outcome
from bystander.analysis.hypotheses import HYPOTHESES, Hypothesis
from bystander.analysis.pairs import Grid, grids, paired, prepared
from bystander.analysis.predictors import Facts, SimilarityTable, facts
from bystander.analysis.results import Analysis, tidy
from bystander.analysis.schemas import TABLES
from bystander.analysis.settings import KEYS, OUTCOME_KEYS, Settings
from bystander.analysis.stats.intervals import NONE, Estimate, crossed
from bystander.analysis.stats.multiplicity import adjust
from bystander.analysis.stats.power import smallest_change, smallest_rho, width_of_mean, width_of_rho
from bystander.analysis.stats.uncertainty import reliability
from bystander.analysis.tables.checks import instrument_rows, phase_row
from bystander.analysis.tables.evolution import courses, dynamics_rows, evolution_rows, quintile_rows, spread_rows
from bystander.analysis.tables.gradient import gradient_rows, sample_of
from bystander.analysis.tables.groups import (
    EVERYTHING,
    category_rows,
    containment_row,
    role_rows,
    source_change,
    source_estimate,
)
from bystander.analysis.tables.leakage import leakage_rows, names_of, record
from bystander.analysis.tables.pooled import SourceSample, mixed_model, pooled_columns
from bystander.analysis.verdicts import verdicts
from bystander.core.records import Verdict

ALPHA, POWER = 0.05, 0.8  # the level and the chance that the power table speaks of
Rows = list[dict[str, object]]


def analyze(
    measurements: pl.DataFrame,
    similarities: pl.DataFrame,
    personas: pl.DataFrame,
    *,
    settings: Settings | None = None,
    hypotheses: Sequence[Hypothesis] = HYPOTHESES,
) -> Analysis:
    """Every table and verdict of a study from its records.

    `measurements`, `similarities`, `personas` have the columns of `core.records.Measurement`, `Similarity` and
    `PersonaFacts`. Raises DataError for tables that contradict themselves (see `pairs.prepared`).
    """
    settings = settings or Settings()
    table, notes = prepared(measurements)
    known, similar = facts(personas), SimilarityTable.read(similarities)
    pairs = paired(table)
    whole = list(grids(pairs))
    rows = final_rows(whole, similar, known, settings, hypotheses)
    rows["instrument"] = instrument_rows(whole, table, settings)
    over_time(rows, pairs, whole, similar, known, settings)
    said = verdicts(rows, whole, hypotheses, settings)
    return packed(rows, settings, [*notes, *_left_out(whole, settings)], said)


def final_rows(
    whole: Sequence[Grid],
    similarities: SimilarityTable,
    known: Facts,
    settings: Settings,
    hypotheses: Sequence[Hypothesis] = (),
) -> dict[str, Rows]:
    """Rows of every table that needs the last checkpoint only; the others are there and empty."""
    rows: dict[str, Rows] = {name: [] for name in TABLES}
    for grid in whole:
        for seed, part in parts(grid):
            rows["leakage"] += leakage_rows(part, seed, known.category, settings)
            rows["gradient"] += gradient_rows(part, seed, similarities, known, settings)
            rows["containment"].append(containment_row(part, seed, known, settings))
            rows["categories"] += category_rows(part, seed, known, settings)
            rows["roles"] += role_rows(part, seed, settings)
    rows["pooled"] = pooled_rows(whole, similarities, known, settings)
    declared = all_declared(whole, hypotheses, settings)
    tested = {(test.behavior, test.outcome) for test in declared}
    for grid in whole:
        first = (primary_outcome(whole, grid.key[0]) or grid.outcome) == grid.outcome
        if first:
            rows["phase"].append(phase_row(grid, whole, similarities, known, settings))
        if first or (grid.key[0], grid.outcome) in tested:
            rows["power"] += power_rows(grid, known, settings)
    for name, column in (("gradient", "p"), ("pooled", "p_matrix")):
        for row in rows[name]:
            row["preregistered"] = preregistered(row, declared, settings)
        adjust(rows[name], column)
    return rows


def over_time(
    rows: dict[str, Rows],
    pairs: pl.DataFrame,
    whole: Sequence[Grid],
    similarities: SimilarityTable,
    known: Facts,
    settings: Settings,
) -> None:
    """Add the tables that need every checkpoint. `whole` are the grids of the last one."""
    ends = pairs.group_by([*KEYS, "seed", *OUTCOME_KEYS]).agg(pl.col("checkpoint").max())["checkpoint"].unique()
    steps = [float(step) for step in pairs["checkpoint"].unique().sort() if step > 0]
    together = ends.len() == 1  # every training is at the same end
    watched = [(step, whole if together and step == steps[-1] else list(grids(pairs, step))) for step in steps]
    for course in courses(watched):
        rows["evolution"] += evolution_rows(course, similarities, known, settings)
        found = dynamics_rows(course, similarities, known, settings)
        rows["dynamics"] += found
        rows["spread"] += spread_rows(course, found, settings)
        rows["quintiles"] += quintile_rows(course, similarities, settings)


def packed(
    rows: Mapping[str, Rows], settings: Settings, notes: Sequence[str], said: Sequence[Verdict] = ()
) -> Analysis:
    """The result from its rows."""
    plain = {name: ", ".join(value) if isinstance(value, tuple) else value for name, value in asdict(settings).items()}
    tables = {name: tidy(rows[name], TABLES[name]) for name in TABLES}
    return Analysis(verdicts=tuple(said), notes=tuple(notes), settings=plain, **tables)  # pyright: ignore[reportArgumentType]


def _left_out(whole: Sequence[Grid], settings: Settings) -> list[str]:
    """Who is not in the gradients because of its role, by training design."""
    said: dict[str, None] = {}
    for grid in whole:
        behavior, source, arm, config = grid.key
        names = [
            name
            for kind, name, role in zip(grid.kinds, grid.names, grid.roles, strict=True)
            if kind == "persona" and role not in settings.gradient_over and role != "source"
        ]
        if names:
            said[
                f"{behavior}, {source}, {arm}{', ' if config else ''}{config}: trained, so in no gradient: {', '.join(names)}"
            ] = None
    return list(said)


def parts(grid: Grid) -> Iterable[tuple[int | None, Grid]]:
    """The pooled grid first; then each seed where there are two or more."""
    yield None, grid
    if len(grid.seeds) > 1:
        for index, seed in enumerate(grid.seeds):
            yield seed, grid.one_seed(index)


def preregistered(row: Mapping[str, object], declared: Sequence[Declared], settings: Settings) -> bool:
    """Whether a row is a declared test: the declared predictor and layer, outcome, arm and configuration, over seeds."""
    predictor = settings.layer is not None and (row["method"], row["layer"]) == (settings.method, settings.layer)
    return predictor and row.get("seed") is None and any(test.holds(row) for test in declared)


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
        mask = np.logical_and.reduce(np.isfinite(values), axis=0)
        kept = tuple(name for name, keep in zip(names, mask, strict=True) if keep)
        sources.append(SourceSample(kept, sample.pick(mask), values[:, mask]))
    return shared, [source for source in sources if len(source.names) > 3]


def power_rows(grid: Grid, known: Facts, settings: Settings) -> Rows:
    """Smallest effects that the tests of this design find in 80 % of studies of its size, under its measured noise."""
    sample, names, _ = sample_of(grid, known, settings)
    share = reliability(sample.over_seeds) if len(names) > 1 else np.nan
    own = source_change(grid, settings)
    source = source_estimate(own, grid.unit) if own is not None else NONE
    bystander = crossed(sample.changes, EVERYTHING) if names else NONE
    least = smallest_rho(len(names), ALPHA, POWER, share if share > 0 else 1.0)
    sizes: list[tuple[str, int, float, float]] = [
        ("gradient", len(names), least, width_of_rho(len(names), least if np.isfinite(least) else 0.0)),
        ("source change", source.n, smallest_change(source.standard_error, source.df, ALPHA, POWER), _width(source)),
        (
            "mean bystander change",
            len(names),
            smallest_change(bystander.standard_error, bystander.df, ALPHA, POWER),
            _width(bystander),
        ),
    ]
    return [
        {
            "record": record("power", grid, None, test),
            **names_of(grid, None),
            "test": test,
            "n": n,
            "alpha": ALPHA,
            "power": POWER,
            "smallest": smallest,
            "interval_width": width,
            "reliability": share,
        }
        for test, n, smallest, width in sizes
    ]


def _width(estimate: Estimate) -> float:
    return width_of_mean(estimate.standard_error, estimate.df)
