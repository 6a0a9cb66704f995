"""Does leakage follow similarity, over the held-out bystanders of one source? Rank correlations, every predictor.

Estimand and resampling units: `analysis/stats/uncertainty.py` for the intervals; `p` permutes personas and `p_specific` ranks
the source among all personas (`stats.specificity`); both are about these questions and these trainings. n < 4: no test
(status "few"); n < 2 or a constant: no correlation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from bystander.analysis import keys
from bystander.analysis.grid import PairedGrid
from bystander.analysis.keys import SeedRow
from bystander.analysis.predictors import Covariates, Predictors, SimilarityTable
from bystander.analysis.settings import AnalysisSettings
from bystander.analysis.stats.baseline import CONFOUNDED, confounding, slopes_given_baseline
from bystander.analysis.stats.means import Floats
from bystander.analysis.stats.ranked import RankedPredictors, ranked
from bystander.analysis.stats.ranks import (
    MIN_PERSONAS,
    indicators,
    partial_spearman,
    permutation_p,
    unit_ranks,
    within_category,
)
from bystander.analysis.stats.uncertainty import (
    MIN_RELIABILITY,
    intervals,
    question_draws,
    reliability,
    resampling_scale,
    seed_rhos,
    seed_variance,
    shared_variance,
)
from bystander.analysis.tables.captured import Group
from bystander.analysis.tables.sample import Sample, sample_of
from bystander.analysis.tables.specific import Statistics, area_columns, specific_columns
from bystander.core.errors import few_names


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
    p: Annotated[float, "two-sided, personas permuted: any direction that leakage is smooth along has a small one"] = (
        np.nan
    )
    p_specific: Annotated[
        float,
        "one-sided, rank of this source's rho among those of all personas as pseudo-sources; what verdicts rest on",
    ] = np.nan
    p_specific_attainable: Annotated[float, "the smallest p_specific that so many personas allow"] = np.nan
    p_layers: Annotated[float, "p_specific against the pseudo-sources' largest rho over layers (max-T)"] = np.nan
    against: keys.Against
    rho_baseline: Annotated[
        float,
        "rank correlation of leakage with the untrained metric: beyond 0.5 either way the gradient may be baseline",
    ] = np.nan
    flagged: Annotated[
        bool | None,
        "measured against the untrained model, and rho_baseline beyond 0.5 either way: a change, not leakage",
    ] = None
    rho_within_category: Annotated[float, "rho of ranks centered within category"] = np.nan
    p_within_category: Annotated[float, "two-sided, personas permuted within category"] = np.nan
    partial_prompt_length: Annotated[float, "rho with prompt length and its distance to the source's held constant"] = (
        np.nan
    )
    partial_prompt_length_p: Annotated[float, "two-sided p of it (Freedman and Lane)"] = np.nan
    p_specific_prompt_length: Annotated[float, "p_specific with both held constant"] = np.nan
    partial_baseline: Annotated[
        float, "partial correlation with the true untrained metric held constant, errors in variables; a description"
    ] = np.nan
    slope_baseline: Annotated[
        float, "leakage for one standard deviation of similarity's ranks, the true untrained metric held constant"
    ] = np.nan
    slope_baseline_low: keys.Low = np.nan
    slope_baseline_high: keys.High = np.nan
    slope_baseline_p: Annotated[float, "two-sided p of that slope (errors in variables, jackknife)"] = np.nan
    baseline_reason: Annotated[str, "why there is no such slope"] = ""
    partial_centroid: Annotated[float, "rho with the distance to the centroid of all personas held constant"] = np.nan
    partial_centroid_p: Annotated[float, "two-sided p of it (Freedman and Lane)"] = np.nan
    partial_category: Annotated[float, "rho with category held constant"] = np.nan
    partial_category_p: Annotated[float, "two-sided p of it (Freedman and Lane)"] = np.nan
    rho_log_odds: Annotated[float, "rho with leakage on the scale of log-odds; fractions only"] = np.nan
    p_log_odds: Annotated[float, "p_specific of that"] = np.nan
    auc: Annotated[float, "chance that a captured bystander is more similar than one that is not"] = np.nan
    auc_low: keys.Low = np.nan
    auc_high: keys.High = np.nan
    auc_p_specific: Annotated[float, "one-sided, rank of this source's area among those of all personas"] = np.nan
    reliability: Annotated[float, "share of the variance of leakage over personas that is not error, in [0, 1]"] = (
        np.nan
    )
    preregistered: keys.Preregistered
    p_holm: keys.PHolm = np.nan
    p_bh: keys.PBh = np.nan
    status: keys.RowStatus
    reason: keys.RowReason


def similarity_correlations(
    predictors: Floats, sample: Sample, settings: AnalysisSettings, source_length: float = np.nan
) -> Statistics:
    """Every number of a row that needs no other persona as pseudo-source, for K predictors [K, personas] -> columns of the
    table, each [K]."""
    leakage = sample.leakage
    ranks = ranked(predictors, max(settings.resamples // 2, 2), settings.seed)
    columns: Statistics = {"rho": ranks.unit @ unit_ranks(leakage)}
    columns["p"] = permutation_p(predictors, leakage, settings.permutations, settings.seed)
    columns |= _intervals(ranks, predictors, columns["rho"], sample, settings)
    if len(set(sample.categories)) > 1:
        rho, p = within_category(predictors, leakage, list(sample.categories), settings.permutations, settings.seed)
        columns |= {"rho_within_category": rho, "p_within_category": p}
        columns |= _partial("category", predictors, leakage, indicators(list(sample.categories)), settings)
    length = sample.prompt_length
    if length is not None and np.isfinite(length).all():
        away = np.abs(length - source_length)
        held = np.stack([length, away]) if np.isfinite(source_length) else length[None]
        columns |= _partial("prompt_length", predictors, leakage, held, settings)
    if sample.logits is not None:
        columns["rho_log_odds"] = ranks.unit @ unit_ranks(sample.logits)
    return columns | _baseline(predictors, sample)


def _baseline(predictors: Floats, sample: Sample) -> Statistics:
    """Leakage against the untrained metric, and similarity's slope with the true one held constant."""
    found: Statistics = {}
    known = sample.baseline is not None and np.isfinite(sample.baseline).all() and sample.leakage.size > 1
    if known and sample.baseline is not None and np.ptp(sample.baseline) > 0:
        found["rho_baseline"] = np.full(len(predictors), confounding(sample.leakage, sample.baseline).rho)
    if sample.before is not None and np.isfinite(sample.before).any(axis=1).all():
        slopes = slopes_given_baseline(predictors, sample.before, sample.over_seeds)
        found |= {
            "partial_baseline": slopes.partial, "slope_baseline": slopes.slope, "slope_baseline_low": slopes.low,
            "slope_baseline_high": slopes.high, "slope_baseline_p": slopes.p,
        }  # fmt: skip
    return found


def _partial(
    name: str, predictors: Floats, leakage: Floats, covariates: Floats, settings: AnalysisSettings
) -> Statistics:
    rho, p = partial_spearman(predictors, leakage, covariates, settings.partial_permutations, settings.seed)
    return {f"partial_{name}": rho, f"partial_{name}_p": p}


def _intervals(
    ranks: RankedPredictors, predictors: Floats, rho: Floats, sample: Sample, settings: AnalysisSettings
) -> Statistics:
    nothing = np.full(len(predictors), np.nan)
    seeds, n, asked = sample.changes.shape
    share = reliability(sample.over_seeds)
    columns: Statistics = {"reliability": np.full(len(predictors), share)}
    if n < MIN_PERSONAS or nearly_all_alike(sample.leakage):
        return columns | {"low": nothing, "high": nothing}
    half = max(settings.resamples // 2, 2)
    questions = question_draws(predictors, sample.over_seeds, half, settings.seed)
    parts = [
        (ranks.persona_variance(sample.leakage), float(n - 2)),
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
    grid: PairedGrid, seed: int | None, similarities: SimilarityTable, known: Covariates, settings: AnalysisSettings,
    people: Group | None = None,
) -> list[SimilarityCorrelationRow]:  # fmt: skip
    """Rows for one grid, every predictor of its source. `people`: its bystanders with who is captured; None: not asked."""
    sample, names, refused = sample_of(grid, known, settings)
    source = grid.training.source
    predictors = similarities.of(source, names)
    rows: list[SimilarityCorrelationRow] = []
    for mask, indices in by_mask(predictors):
        unknown = [name for name, is_known in zip(names, mask, strict=True) if not is_known]
        status, reason = state(int(mask.sum()), refused, sample.leakage[mask], unknown)
        part, values = sample.pick(mask), predictors.values[indices][:, mask]
        usable = status in {"ok", "few", "constant"} and mask.sum() > 1
        columns: Statistics = {}
        if usable:
            columns = similarity_correlations(values, part, settings, known.prompt_tokens.get(source, np.nan))
            columns |= centroid_partials(predictors, indices, mask, part, settings)
            chosen = tuple(name for name, is_known in zip(names, mask, strict=True) if is_known)
            if seed is None:
                named = [predictors.names[index] for index in indices]
                columns |= specific_columns(source, chosen, named, part, similarities, known, people)
                columns |= area_columns(values, chosen, people)
        why = _why_no_slope(part, columns)
        for row, index in enumerate(indices):
            method, layer = predictors.names[index]
            numbers: dict[str, Any] = {name: float(column[row]) for name, column in columns.items()}
            rows.append(SimilarityCorrelationRow(
                **grid.key("similarity_correlation", seed, method, layer), method=method, layer=layer, n=int(mask.sum()), n_seeds=len(grid.seeds),
                against=grid.against, flagged=_flagged(grid, numbers), preregistered=False,
                **_state_of(status, reason, values[row]), baseline_reason=why, **numbers,
            ))  # fmt: skip
    return rows


def _flagged(grid: PairedGrid, numbers: Mapping[str, float]) -> bool | None:
    rho = numbers.get("rho_baseline", np.nan)
    return None if not np.isfinite(rho) else bool(grid.benign is None and abs(rho) > CONFOUNDED)


def _state_of(status: str, reason: str, values: Floats) -> dict[str, Any]:
    """Status and reason of one predictor: a constant one has no rank correlation either."""
    if status == "ok" and np.ptp(values) == 0:
        return {
            "status": "constant",
            "reason": "; ".join(["all bystanders are equally similar", *filter(None, [reason])]),
        }
    return {"status": status, "reason": reason}


def _why_no_slope(sample: Sample, columns: Statistics) -> str:
    if sample.before is None or np.isfinite(columns.get("slope_baseline", np.zeros(0))).any():
        return ""
    if not np.isfinite(sample.before).any(axis=1).all():
        return "the untrained metric is not known of every bystander"
    return slopes_given_baseline(np.zeros((0, sample.leakage.size)), sample.before, sample.over_seeds).reason


def nearly_all_alike(leakage: Floats) -> bool:
    """Whether all but a few leaked alike: what a resample of personas holds of those few decides its correlation, and the
    interval promises what nobody knows."""
    _, counts = np.unique(leakage, return_counts=True)
    return bool(leakage.size - counts.max() < MIN_PERSONAS)


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
    if nearly_all_alike(leakage):
        notes.insert(0, f"fewer than {MIN_PERSONAS} bystanders differ from the rest: no interval")
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
