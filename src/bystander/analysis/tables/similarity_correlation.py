"""Does leakage follow similarity, over the held-out bystanders of one source? Rank correlations, every predictor.

Estimand and resampling units: `analysis/stats/uncertainty.py` for the intervals; the p-values permute personas and are about
these questions and these trainings. n < 4: no test (status "few"); n < 2 or a constant: no correlation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from bystander.analysis import keys
from bystander.analysis.keys import SeedRow
from bystander.analysis.pairs import PairedGrid
from bystander.analysis.predictors import Covariates, Predictors, SimilarityTable
from bystander.analysis.settings import AnalysisSettings
from bystander.analysis.stats.means import Floats
from bystander.analysis.stats.ranks import (
    MIN_PERSONAS,
    indicators,
    partial_spearman,
    permutation_p,
    spearman,
    within_category,
)
from bystander.analysis.stats.uncertainty import (
    MIN_RELIABILITY,
    intervals,
    persona_variance,
    question_draws,
    reliability,
    resampling_scale,
    seed_rhos,
    seed_variance,
    shared_variance,
)
from bystander.analysis.tables.sample import Sample, sample_of
from bystander.core.errors import few_names

Statistics = dict[str, Floats]  # column -> a value for each predictor


@dataclass(frozen=True, slots=True, kw_only=True)
class SimilarityCorrelationRow(SeedRow):
    """One row per training, outcome, predictor and layer: rank correlation over the held-out bystanders."""

    method: keys.PredictorName
    layer: keys.PredictorLayer
    n: keys.PersonaCount
    n_seeds: keys.SeedCount
    rho: Annotated[float, "Spearman's rank correlation of leakage with similarity"] = np.nan
    low: keys.Low = np.nan
    high: keys.High = np.nan
    rho_corrected: Annotated[
        float, "rho / sqrt(reliability): with error-free leakage; empty below a reliability of 0.5"
    ] = np.nan
    corrected_low: keys.Low = np.nan
    corrected_high: keys.High = np.nan
    p: Annotated[float, "two-sided, personas permuted"] = np.nan
    rho_within_category: Annotated[float, "rho of ranks centered within category"] = np.nan
    p_within_category: Annotated[float, "two-sided, personas permuted within category"] = np.nan
    partial_prompt_length: Annotated[float, "rho with prompt length held constant"] = np.nan
    partial_prompt_length_p: Annotated[float, "two-sided p of it (Freedman and Lane)"] = np.nan
    partial_baseline: Annotated[float, "rho with the metric before training held constant"] = np.nan
    partial_baseline_p: Annotated[float, "two-sided p of it (Freedman and Lane)"] = np.nan
    partial_centroid: Annotated[float, "rho with the distance to the centroid of all personas held constant"] = np.nan
    partial_centroid_p: Annotated[float, "two-sided p of it (Freedman and Lane)"] = np.nan
    partial_category: Annotated[float, "rho with category held constant"] = np.nan
    partial_category_p: Annotated[float, "two-sided p of it (Freedman and Lane)"] = np.nan
    reliability: Annotated[float, "share of the variance of leakage over personas that is not error, in [0, 1]"] = (
        np.nan
    )
    preregistered: keys.Preregistered
    p_holm: keys.PHolm = np.nan
    p_bh: keys.PBh = np.nan
    status: keys.RowStatus
    reason: keys.RowReason


def similarity_correlations(predictors: Floats, sample: Sample, settings: AnalysisSettings) -> Statistics:
    """Every number of a row for K predictors [K, personas] -> columns of the table, each [K]."""
    leakage = sample.leakage
    columns: Statistics = {"rho": spearman(predictors, leakage)}
    columns["p"] = permutation_p(predictors, leakage, settings.permutations, settings.seed)
    columns |= _intervals(predictors, columns["rho"], sample, settings)
    if len(set(sample.categories)) > 1:
        rho, p = within_category(predictors, leakage, list(sample.categories), settings.permutations, settings.seed)
        columns |= {"rho_within_category": rho, "p_within_category": p}
        columns |= _partial("category", predictors, leakage, indicators(list(sample.categories)), settings)
    for name, covariate in (("prompt_length", sample.prompt_length), ("baseline", sample.baseline)):
        if covariate is not None and np.isfinite(covariate).all():
            columns |= _partial(name, predictors, leakage, covariate[None], settings)
    return columns


def _partial(
    name: str, predictors: Floats, leakage: Floats, covariates: Floats, settings: AnalysisSettings
) -> Statistics:
    rho, p = partial_spearman(predictors, leakage, covariates, settings.partial_permutations, settings.seed)
    return {f"partial_{name}": rho, f"partial_{name}_p": p}


def _intervals(predictors: Floats, rho: Floats, sample: Sample, settings: AnalysisSettings) -> Statistics:
    nothing = np.full(len(predictors), np.nan)
    seeds, n, asked = sample.changes.shape
    share = reliability(sample.over_seeds)
    columns: Statistics = {"reliability": np.full(len(predictors), share)}
    if n < MIN_PERSONAS:
        return columns | {"low": nothing, "high": nothing}
    half = max(settings.resamples // 2, 2)
    questions = question_draws(predictors, sample.over_seeds, half, settings.seed)
    parts = [
        (persona_variance(predictors, sample.leakage, half, settings.seed), float(n - 2)),
        (shared_variance(questions, len(predictors), resampling_scale(asked, share)), float(max(asked - 1, 1))),
        (seed_variance(seed_rhos(predictors, sample.by_seed)), float(max(seeds - 1, 1))),
    ]
    ends = intervals(rho, parts)
    columns |= {"low": ends.low, "high": ends.high}
    if share >= MIN_RELIABILITY:
        corrected = [np.clip(values / share**0.5, -1, 1) for values in (rho, ends.low, ends.high)]
        columns |= dict(zip(("rho_corrected", "corrected_low", "corrected_high"), corrected, strict=True))
    return columns


def similarity_correlation_rows(
    grid: PairedGrid, seed: int | None, similarities: SimilarityTable, known: Covariates, settings: AnalysisSettings
) -> list[SimilarityCorrelationRow]:
    """Rows for one grid, every predictor of its source."""
    sample, names, refused = sample_of(grid, known, settings)
    predictors = similarities.of(grid.training.source, names)
    rows: list[SimilarityCorrelationRow] = []
    for mask, indices in by_mask(predictors):
        unknown = [name for name, is_known in zip(names, mask, strict=True) if not is_known]
        status, reason = state(int(mask.sum()), refused, sample.leakage[mask], unknown)
        part, values = sample.pick(mask), predictors.values[indices][:, mask]
        usable = status in {"ok", "few", "constant"} and mask.sum() > 1
        columns = similarity_correlations(values, part, settings) if usable else {}
        if usable:
            columns |= centroid_partials(predictors, indices, mask, part, settings)
        for row, index in enumerate(indices):
            method, layer = predictors.names[index]
            rows.append(SimilarityCorrelationRow(
                **grid.key("similarity_correlation", seed, method, layer), method=method, layer=layer, n=int(mask.sum()), n_seeds=len(grid.seeds),
                preregistered=False, status=status, reason=reason, **{name: float(column[row]) for name, column in columns.items()},
            ))  # fmt: skip
    return rows


def by_mask(predictors: Predictors) -> list[tuple[NDArray[np.bool_], list[int]]]:
    """Predictors that know the same personas, together: (who is known, indices of the predictors)."""
    groups: dict[bytes, list[int]] = {}
    known = np.isfinite(predictors.values)
    for index in range(len(predictors.names)):
        groups.setdefault(known[index].tobytes(), []).append(index)
    return [(known[indices[0]], indices) for indices in groups.values()]


def state(n: int, refused: list[str], leakage: Floats, unknown: list[str]) -> tuple[str, str]:
    """Status and reason of a correlation over n personas."""
    notes = [f"left out, too much failed or not measured: {few_names(refused)}"] if refused else []
    notes += [f"left out, no similarity: {few_names(unknown)}"] if unknown else []
    if n == 0:
        return "empty", "; ".join(["no held-out bystander", *notes])
    if n < MIN_PERSONAS:
        return "few", "; ".join([f"{n} bystanders: no test below {MIN_PERSONAS}", *notes])
    if np.ptp(leakage) == 0:
        return "constant", "; ".join(["all bystanders leaked alike", *notes])
    return "ok", "; ".join(notes)


def centroid_partials(
    predictors: Predictors, indices: list[int], mask: NDArray[np.bool_], sample: Sample, settings: AnalysisSettings
) -> Statistics:
    """Partial correlations on the distance to the centroid at each predictor's own layer."""
    rho, p = np.full(len(indices), np.nan), np.full(len(indices), np.nan)
    layers: dict[int, list[int]] = {}
    for row, index in enumerate(indices):
        layers.setdefault(predictors.names[index][1], []).append(row)
    for layer, rows in layers.items():
        distance = predictors.centroid(layer)
        if distance is None or not np.isfinite(distance[mask]).all():
            continue
        values = predictors.values[[indices[row] for row in rows]][:, mask]
        rho[rows], p[rows] = partial_spearman(
            values, sample.leakage, distance[mask][None], settings.partial_permutations, settings.seed
        )
    return {"partial_centroid": rho, "partial_centroid_p": p}
