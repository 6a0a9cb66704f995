"""Does leakage follow similarity, over sources: ranked within source, then combined.

Estimand: the mean over these sources (weighted by their bystanders) of the rank correlation over the population of
personas. Resampling unit: the persona, with all its sources at once. One source, or n < 4: no pooled test.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from bystander.analysis import keys
from bystander.analysis.grid import PairedGrid
from bystander.analysis.keys import OutcomeKey, OverSourcesRow, TrainingKey, over_sources_key
from bystander.analysis.predictors import Covariates, SimilarityTable
from bystander.analysis.settings import AnalysisSettings
from bystander.analysis.stats.means import Floats, mean_of
from bystander.analysis.stats.ranked import ranked
from bystander.analysis.stats.ranks import MIN_PERSONAS, spearman
from bystander.analysis.stats.specificity import source_labels
from bystander.analysis.stats.uncertainty import (
    intervals,
    question_draws,
    reliability,
    resampling_scale,
    seed_rhos,
    seed_variance,
    shared_variance,
    variance_of_z,
)
from bystander.analysis.tables.crossing import (
    Crossing,
    SourceSample,
    crossing,
    matrix_permutation,
    mixed_model,
    stratified_permutation,
)
from bystander.analysis.tables.sample import sample_of
from bystander.analysis.tables.specific import Statistics
from bystander.core.hashing import generator


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledRow(OverSourcesRow):
    """One row per behavior, arm, configuration, outcome, predictor and layer: the correlation over sources."""

    method: keys.PredictorName
    layer: keys.PredictorLayer
    n_sources: Annotated[int, "sources"]
    n: Annotated[int, "pairs of source and held-out bystander"]
    rho: Annotated[float, "Spearman's rho ranked within source, then combined"]
    low: keys.Low
    high: keys.High
    p_matrix: Annotated[
        float,
        "two-sided p of rho: personas permuted jointly over the sources (Mantel-like); says nothing of the source",
    ]
    against: keys.Against
    p_specific: Annotated[
        float,
        "one-sided: which source's similarity goes with which source's leakage is permuted; what verdicts rest on",
    ]
    p_specific_attainable: Annotated[float, "the smallest p_specific that so many sources allow: 1 / number of orders"]
    p_layers: Annotated[float, "p_specific against the orders' largest mean rho over layers (max-T)"]
    n_shared: Annotated[int, "bystanders that all sources share, which p_specific is over"]
    rho_within_category: Annotated[float, "rho of ranks centered within source and category, then combined"]
    p_within_category: Annotated[float, "two-sided, personas permuted jointly over the sources, within category"]
    rho_within_persona: Annotated[float, "what is specific to the pair: persona means over sources taken out as well"]
    p_stratified: Annotated[
        float, "p of rho_within_persona: permutation within each source, persona effects held constant"
    ]
    rho_all_pairs: Annotated[float, "Spearman's rho over all pairs as they are: mixes sources, descriptive only"]
    slope: Annotated[float, "mixed model on standardized ranks, random effects of source and persona"] = np.nan
    slope_low: keys.Low = np.nan
    slope_high: keys.High = np.nan
    slope_p: Annotated[float, "Wald p of the slope"] = np.nan
    preregistered: keys.Preregistered
    p_holm: keys.PHolm = np.nan
    p_bh: keys.PBh = np.nan
    status: keys.RowStatus
    reason: keys.RowReason


def pooled_rows(
    whole: Sequence[PairedGrid], similarities: SimilarityTable, known: Covariates, settings: AnalysisSettings,
    undeclared: AnalysisSettings, tested: Collection[tuple[str, OutcomeKey]] | None = None,
) -> list[PooledRow]:  # fmt: skip
    """One row per behavior, arm, config, outcome and predictor with two sources or more. The mixed model is fitted for the
    declared predictor of the outcomes (behavior, outcome) in `tested`; None: of all. `undeclared`: the effort for the
    others."""
    groups: dict[tuple[TrainingKey, OutcomeKey], list[PairedGrid]] = {}
    for grid in whole:
        groups.setdefault((grid.training._replace(source=""), grid.outcome), []).append(grid)
    declared = {key: tested is None or (key[0].behavior, key[1]) in tested for key in groups}
    found: dict[tuple[TrainingKey, OutcomeKey], list[PooledRow]] = {}
    for key in sorted(groups, key=lambda key: not declared[key]):  # together: predictors are ranked once for an effort
        names, sources = source_samples(groups[key], similarities, known, settings)
        if len(sources) < 2 or not names:
            continue
        effort = settings if declared[key] else undeclared
        against = " and ".join(sorted({member.against for member in groups[key]}))
        found[key] = _group_rows(*key, names, sources, against, effort, fitted=declared[key])
    return [row for key in groups for row in found.get(key, [])]


def _group_rows(
    training: TrainingKey, outcome: OutcomeKey, names: Sequence[tuple[str, int]], sources: Sequence[SourceSample],
    against: str, settings: AnalysisSettings, *, fitted: bool,
) -> list[PooledRow]:  # fmt: skip
    """The rows of one outcome, a predictor each; the mixed model where `fitted`."""
    columns = pooled_columns(sources, settings)
    shared, specific = label_columns(names, sources, settings)
    columns |= specific
    pairs, rows = sum(len(source.names) for source in sources), list[PooledRow]()
    for index, (method, layer) in enumerate(names):
        slope, reason = dict[str, float](), ""
        if settings.declares(method, layer) and fitted:
            *numbers, reason = mixed_model(sources, index)
            slope = dict(zip(("slope", "slope_low", "slope_high", "slope_p"), numbers, strict=True))
        rows.append(PooledRow(
            **over_sources_key("pooled", training, outcome, method, layer), method=method, layer=layer, against=against,
            n_shared=shared, n_sources=len(sources), n=pairs, preregistered=False, status="ok", reason=reason, **slope,
            **{name: float(column[index]) for name, column in columns.items()},
        ))  # fmt: skip
    return rows


def source_samples(
    members: Sequence[PairedGrid], similarities: SimilarityTable, known: Covariates, settings: AnalysisSettings
) -> tuple[list[tuple[str, int]], list[SourceSample]]:
    """Sources side by side with the predictors that all of them have, over personas that all predictors know."""
    drafts = [(grid, *sample_of(grid, known, settings)) for grid in members]
    found = [
        (sample, names, similarities.of(grid.training.source, names))
        for grid, sample, names, _ in drafts
        if len(names) > 3
    ]
    if not found:
        return [], []
    shared = [name for name in found[0][2].names if all(name in other.names for _, _, other in found)]
    sources: list[SourceSample] = []
    for sample, names, predictors in found:
        values = predictors.values[[predictors.names.index(name) for name in shared]]
        mask = np.logical_and.reduce(np.isfinite(values), axis=0)
        chosen = tuple(name for name, usable in zip(names, mask, strict=True) if usable)
        sources.append(SourceSample(chosen, sample.pick(mask), values[:, mask]))
    return shared, [source for source in sources if len(source.names) > 3]


def label_columns(
    predictors: Sequence[tuple[str, int]], sources: Sequence[SourceSample], settings: AnalysisSettings
) -> tuple[int, Statistics]:
    """`stats.specificity.source_labels` over the bystanders that all sources share, by method (its layers for max-T)
    -> (how many, columns each [K])."""
    shared = sorted(set.intersection(*(set(source.names) for source in sources)))
    columns = {name: np.full(len(predictors), np.nan) for name in ("p_specific", "p_specific_attainable", "p_layers")}
    if len(shared) < MIN_PERSONAS:
        return len(shared), columns
    at = [[source.names.index(name) for name in shared] for source in sources]
    similarity = np.stack([source.predictors[:, own] for source, own in zip(sources, at, strict=True)], axis=1)
    leakage = np.stack([source.sample.leakage[own] for source, own in zip(sources, at, strict=True)])
    for method in dict.fromkeys(name for name, _ in predictors):
        rows = [index for index, (name, _) in enumerate(predictors) if name == method]
        found = source_labels(similarity[rows], leakage, generator("source labels", method, settings.seed))
        columns["p_specific"][rows], columns["p_layers"][rows] = found.p, found.p_adjusted
        columns["p_specific_attainable"][rows] = found.attainable
    return len(shared), columns


def pooled_columns(sources: Sequence[SourceSample], settings: AnalysisSettings) -> Statistics:
    """Every number of the pooled table but the mixed model's, for K predictors -> columns, each [K]."""
    data = crossing(sources)
    rho, p = matrix_permutation(data, settings)
    within, p_within = matrix_permutation(crossing(sources, within_category=True), settings, within_category=True)
    specific, p_specific = stratified_permutation(data, settings)
    ends = intervals(rho, _variances(sources, data, settings))
    several = len(set(data.categories)) > 1
    return {
        "rho": rho,
        "low": ends.low,
        "high": ends.high,
        "p_matrix": p,
        "rho_within_category": within if several else np.full(len(rho), np.nan),
        "p_within_category": p_within if several else np.full(len(rho), np.nan),
        "rho_within_persona": specific,
        "p_stratified": p_specific,
        "rho_all_pairs": spearman(
            np.hstack([source.predictors for source in sources]),
            np.concatenate([source.sample.leakage for source in sources]),
        ),
    }


def _variances(
    sources: Sequence[SourceSample], data: Crossing, settings: AnalysisSettings
) -> list[tuple[Floats, float]]:
    """Persona, question and seed parts of the variance of the pooled z, with their degrees of freedom."""
    half = max(settings.resamples // 2, 2)
    size = data.known.sum(axis=1)
    weight = size / size.sum()
    personas = np.zeros((half, len(data.predictors)))
    questions: list[tuple[Floats, Floats]] = []
    seeds: list[Floats] = []
    order = sorted({name for source in sources for name in source.names})
    for row, source in enumerate(sources):
        at = np.flatnonzero(data.known[row])
        chosen = np.array([source.names.index(order[index]) for index in at])
        predictors, sample = source.predictors[:, chosen], source.sample
        ranks = ranked(predictors, half, settings.seed, data.known.shape[1], tuple(at.tolist()))
        personas += weight[row] * ranks.draws(sample.leakage[chosen])
        draws = question_draws(predictors, sample.over_seeds[chosen], half, settings.seed, str(row))
        if draws is not None:
            questions.append((weight[row] * draws[0], weight[row] * draws[1]))
        seeds.append(weight[row] * seed_rhos(predictors, sample.by_seed[:, chosen]))
    shared: tuple[Floats, Floats] | None = None
    if len(questions) == len(sources):
        shared = np.sum([pair[0] for pair in questions], axis=0), np.sum([pair[1] for pair in questions], axis=0)
    alike = len({len(part) for part in seeds}) == 1
    between = seed_variance(np.sum(seeds, axis=0)) if alike else np.zeros(len(data.predictors))
    asked = min(source.sample.changes.shape[2] for source in sources)
    share = float(mean_of(np.array([reliability(source.sample.over_seeds) for source in sources])))
    return [
        (variance_of_z(personas), float(data.known.shape[1] - 2)),
        (shared_variance(shared, len(data.predictors), resampling_scale(asked, share)), float(max(asked - 1, 1))),
        (between, float(max(len(seeds[0]) - 1, 1))),
    ]
