"""The gradient: does leakage follow similarity, over the held-out bystanders of one source?

Estimand and resampling units: `analysis/stats/uncertainty.py` for the intervals; the p-values permute personas and are about
these questions and these trainings. n < 4: no test (status "few"); n < 2 or a constant: no correlation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bystander.analysis.pairs import Grid
from bystander.analysis.predictors import Facts, Predictors, SimilarityTable
from bystander.analysis.settings import Settings
from bystander.analysis.stats.means import mean_of
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
from bystander.analysis.tables.leakage import names_of, record
from bystander.core.errors import few_names

Floats = NDArray[np.float64]
Columns = dict[str, Floats]


@dataclass(frozen=True)
class Sample:
    """The personas of one gradient. `changes` [seeds, personas, questions] signed in the behavior's direction (one
    "question" where only a leakage by persona is known); the covariates [personas], None where unknown."""

    changes: Floats
    categories: tuple[str, ...] = ()
    prompt_length: Floats | None = None
    baseline: Floats | None = None

    @property
    def leakage(self) -> Floats:
        """[personas]: mean over seeds and questions."""
        return mean_of(self.changes, (0, 2))

    @property
    def by_seed(self) -> Floats:
        """[seeds, personas]."""
        return mean_of(self.changes, 2)

    @property
    def over_seeds(self) -> Floats:
        """[personas, questions]."""
        return self.changes[0] if len(self.changes) == 1 else mean_of(self.changes, 0)

    def pick(self, chosen: NDArray[np.bool_]) -> Sample:
        """The same for some of the personas."""
        return Sample(
            self.changes[:, chosen],
            tuple(np.array(self.categories, dtype=object)[chosen]) if self.categories else (),
            None if self.prompt_length is None else self.prompt_length[chosen],
            None if self.baseline is None else self.baseline[chosen],
        )


def gradients(predictors: Floats, sample: Sample, settings: Settings) -> Columns:
    """Every number of a gradient for K predictors [K, personas] -> columns of the gradient table, each [K]."""
    leakage = sample.leakage
    columns: Columns = {"rho": spearman(predictors, leakage)}
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


def _partial(name: str, predictors: Floats, leakage: Floats, covariates: Floats, settings: Settings) -> Columns:
    rho, p = partial_spearman(predictors, leakage, covariates, settings.partial_permutations, settings.seed)
    return {f"partial_{name}": rho, f"partial_{name}_p": p}


def _intervals(predictors: Floats, rho: Floats, sample: Sample, settings: Settings) -> Columns:
    nothing = np.full(len(predictors), np.nan)
    seeds, n, asked = sample.changes.shape
    share = reliability(sample.over_seeds)
    columns: Columns = {"reliability": np.full(len(predictors), share)}
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


def sample_of(grid: Grid, facts: Facts, settings: Settings) -> tuple[Sample, list[str], list[str]]:
    """The personas of a grid that a gradient may use -> (sample, their names, names left out because too much failed)."""
    chosen = grid.bystanders(settings.gradient_over)
    sound = grid.sound(settings.failed_limit)
    refused = [grid.names[i] for i in np.flatnonzero(chosen & ~sound)]
    part = grid.pick(chosen & sound)
    lengths = np.array([facts.prompt_tokens.get(name, np.nan) for name in part.names])
    categories = tuple(facts.category.get(name, "") for name in part.names)
    baseline = mean_of(np.where(np.isfinite(part.change), part.before, np.nan), (0, 2)) if part.names else None
    return Sample(part.change, categories, lengths, baseline), list(part.names), refused


def gradient_rows(
    grid: Grid, seed: int | None, similarities: SimilarityTable, facts: Facts, settings: Settings
) -> list[dict[str, object]]:
    """Rows of the gradient table for one grid, every predictor of its source."""
    sample, names, refused = sample_of(grid, facts, settings)
    predictors = similarities.of(grid.key[1], names)
    rows: list[dict[str, object]] = []
    for mask, places in by_mask(predictors):
        status, reason = gradient_state(
            int(mask.sum()), refused, sample.leakage[mask], [n for n, m in zip(names, mask, strict=True) if not m]
        )
        part, values = sample.pick(mask), predictors.values[places][:, mask]
        usable = status in {"ok", "few", "constant"} and mask.sum() > 1
        columns = gradients(values, part, settings) if usable else {}
        if usable:
            columns |= centroid_partials(predictors, places, mask, part, settings)
        for row, place in enumerate(places):
            method, layer = predictors.names[place]
            rows.append(
                {
                    "record": record("gradient", grid, seed, method, layer),
                    **names_of(grid, seed),
                    "method": method,
                    "layer": layer,
                    "n": int(mask.sum()),
                    "n_seeds": len(grid.seeds),
                    "status": status,
                    "reason": reason,
                    **{name: float(column[row]) for name, column in columns.items()},
                }
            )
    return rows


def by_mask(predictors: Predictors) -> list[tuple[NDArray[np.bool_], list[int]]]:
    """Predictors that know the same personas, together: (who is known, places of the predictors)."""
    groups: dict[bytes, list[int]] = {}
    known = np.isfinite(predictors.values)
    for place in range(len(predictors.names)):
        groups.setdefault(known[place].tobytes(), []).append(place)
    return [(known[places[0]], places) for places in groups.values()]


def gradient_state(n: int, refused: list[str], leakage: Floats, unknown: list[str]) -> tuple[str, str]:
    """Status and reason of a gradient over n personas."""
    said = [f"left out, too much failed or not measured: {few_names(refused)}"] if refused else []
    said += [f"left out, no similarity: {few_names(unknown)}"] if unknown else []
    if n == 0:
        return "empty", "; ".join(["no held-out bystander", *said])
    if n < MIN_PERSONAS:
        return "few", "; ".join([f"{n} bystanders: no test below {MIN_PERSONAS}", *said])
    if np.ptp(leakage) == 0:
        return "constant", "; ".join(["all bystanders leaked alike", *said])
    return "ok", "; ".join(said)


def centroid_partials(
    predictors: Predictors, places: list[int], mask: NDArray[np.bool_], sample: Sample, settings: Settings
) -> Columns:
    """Partial gradients on the distance to the centroid at each predictor's own layer."""
    rho, p = np.full(len(places), np.nan), np.full(len(places), np.nan)
    layers: dict[int, list[int]] = {}
    for row, place in enumerate(places):
        layers.setdefault(predictors.names[place][1], []).append(row)
    for layer, rows in layers.items():
        distance = predictors.centroid(layer)
        if distance is None or not np.isfinite(distance[mask]).all():
            continue
        values = predictors.values[[places[row] for row in rows]][:, mask]
        rho[rows], p[rows] = partial_spearman(
            values, sample.leakage, distance[mask][None], settings.partial_permutations, settings.seed
        )
    return {"partial_centroid": rho, "partial_centroid_p": p}
