"""Tests under true nulls: how often do they reject at 5 %?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bystander.analysis.stats.intervals import crossed
from bystander.analysis.stats.ranks import p_two_sided, partial_spearman, permutation_p, permutations
from bystander.analysis.tables.crossing import (
    SourceSample,
    crossing,
    matrix_permutation,
    mixed_model,
    stratified_permutation,
)
from bystander.analysis.tables.leakage import mcnemar
from bystander.analysis.tables.sample import EVERYTHING
from bystander.analysis.tables.similarity_correlation import similarity_correlations
from bystander.analysis.tables.timing import timing
from calibration import worlds
from calibration.rows import TESTS, CalibrationLine, Floats, level, sample_at, sources_of
from calibration.worlds import WorldShape


def null_correlations(studies: int, seed: int = 1) -> Iterator[CalibrationLine]:
    """No effect: personas exchangeable; similarity has categories and persona effects, leakage persona effects only."""
    rng = np.random.default_rng(seed)
    p: dict[str, list[float]] = {}
    at = worlds.held_out(0)
    for _ in range(studies):
        x, leakage = worlds.truth(rng, WorldShape(persona=(0.7, 0.7), category=(0.7, 0.0)), 1)
        changes = worlds.measured(rng, leakage[0, at], worlds.QUESTIONS, 0.8)
        length, baseline = rng.poisson(20, at.size).astype(float), rng.normal(size=at.size)
        columns = similarity_correlations(x[:, at], sample_at(changes, at, length=length, baseline=baseline), TESTS)
        for name in ("p", "p_within_category", "partial_prompt_length_p", "partial_category_p"):
            p.setdefault(name, []).append(float(columns[name][0]))
    for name, values in p.items():
        yield level(f"similarity correlation: {name}", "no effect, personas exchangeable", values)


def null_within_categories(studies: int, seed: int = 2) -> Iterator[CalibrationLine]:
    """Category means of similarity and leakage go together (0.9); inside categories there is nothing."""
    rng = np.random.default_rng(seed)
    at = worlds.held_out(0)
    p: dict[str, list[float]] = {"p": [], "p_within_category": [], "partial_category_p": []}
    for _ in range(studies):
        x, leakage = worlds.truth(rng, WorldShape(category=(1.0, 1.0), between=0.9), 1)
        changes = worlds.measured(rng, leakage[0, at], worlds.QUESTIONS, 0.8)
        columns = similarity_correlations(x[:, at], sample_at(changes, at), TESTS)
        for name, values in p.items():
            values.append(float(columns[name][0]))
    scenario = "category means go together, nothing inside categories"
    yield level("similarity correlation: p_within_category", scenario, p["p_within_category"])
    yield level("similarity correlation: partial_category_p", scenario, p["partial_category_p"])
    yield level("similarity correlation: p, read as a correlation inside categories", scenario, p["p"], offered=False)


def null_prompt_length(studies: int, seed: int = 3) -> Iterator[CalibrationLine]:
    """Prompt length moves both similarity and leakage; nothing else ties them."""
    rng = np.random.default_rng(seed)
    at = worlds.held_out(0)
    p: list[float] = []
    raw: list[float] = []
    for _ in range(studies):
        length = rng.normal(size=at.size)
        x = 0.7 * length + 0.7 * rng.normal(size=at.size)
        leakage = 0.7 * length + 0.7 * rng.normal(size=at.size)
        shown = np.round(20 + 6 * length)
        y = worlds.measured(rng, leakage, 60, 0.95).mean(axis=1)
        p.append(float(partial_spearman(x[None], y, (20 + 6 * length)[None], 999, 0)[1][0]))
        raw.append(float(partial_spearman(x[None], y, shown[None], 999, 0)[1][0]))
    yield level("similarity correlation: partial_prompt_length_p", "prompt length moves both", p)
    yield level(
        "similarity correlation: partial_prompt_length_p",
        "prompt length moves both, rounded to whole tokens",
        raw,
        0.035,
        0.08,
    )


def null_pooled(studies: int, seed: int = 4) -> Iterator[CalibrationLine]:
    """Five sources, persona effects in similarity and in leakage that have nothing to do with each other."""
    rng = np.random.default_rng(seed)
    p: dict[str, list[float]] = {"p_matrix": [], "p_within_category": [], "p_stratified": [], "plain": []}
    for _ in range(studies):
        x, leakage = worlds.truth(rng, WorldShape(persona=(1.0, 1.0)))
        sources = sources_of(rng, x, leakage, 60, 0.8)
        p["p_matrix"].append(float(matrix_permutation(crossing(sources), TESTS)[1][0]))
        within = matrix_permutation(crossing(sources, within_category=True), TESTS, within_category=True)
        p["p_within_category"].append(float(within[1][0]))
        p["p_stratified"].append(float(stratified_permutation(crossing(sources), TESTS)[1][0]))
        p["plain"].append(_plain_stratified(sources))
    scenario = "no effect, personas leak more or less from all sources"
    for name in ("p_matrix", "p_within_category", "p_stratified"):
        yield level(f"pooled: {name}", scenario, p[name])
    yield level("pooled: plain permutation within source", scenario, p["plain"], offered=False)


def _plain_stratified(sources: list[SourceSample]) -> float:
    """Permutation within each source on its own, persona effects left in: what is not offered."""
    data = crossing(sources)
    at, rows = np.nonzero(data.known)
    x, y = data.predictors[0][at, rows], data.leakage[at, rows]
    drawn = permutations(len(y), 999, 0, tuple(int(s) for s in at))
    return float(p_two_sided(np.array([x @ y]), (y[drawn] @ x)[:, None])[0])


def null_pooled_clusters(studies: int, seed: int = 5) -> Iterator[CalibrationLine]:
    """Five sources; persona parts of both go together (0.9), and category parts too: only pairs hold nothing."""
    rng = np.random.default_rng(seed)
    specific: list[float] = []
    within: list[float] = []
    for _ in range(studies):
        x, leakage = worlds.truth(rng, WorldShape(persona=(1.0, 1.0), common=0.9))
        sources = sources_of(rng, x, leakage, 24, 0.8)
        specific.append(float(stratified_permutation(crossing(sources), TESTS)[1][0]))
        x, leakage = worlds.truth(rng, WorldShape(persona=(0.7, 0.7), category=(1.0, 1.0), between=0.9))
        sources = sources_of(rng, x, leakage, 24, 0.8)
        data = crossing(sources, within_category=True)
        within.append(float(matrix_permutation(data, TESTS, within_category=True)[1][0]))
    yield level("pooled: p_stratified", "persona effects go together, nothing specific to pairs", specific)
    yield level("pooled: p_within_category", "category means go together, nothing inside categories", within)


def null_mixed_model(studies: int, seed: int = 6) -> Iterator[CalibrationLine]:
    """As `null_pooled`, for the mixed model; and its interval."""
    rng = np.random.default_rng(seed)
    p: list[float] = []
    failed = 0
    for _ in range(studies):
        x, leakage = worlds.truth(rng, WorldShape(persona=(1.0, 1.0)))
        leakage += 0.5 * rng.standard_normal((worlds.SOURCES, 1))
        fit = mixed_model(sources_of(rng, x, leakage, 2, 0.8), 0)
        failed += not np.isfinite(fit[3])
        p += [fit[3]] if np.isfinite(fit[3]) else []
    yield level(f"pooled: slope_p ({failed} of {studies} did not converge)", "no effect, persona and source effects", p)


def null_means(studies: int, seed: int = 7) -> Iterator[CalibrationLine]:
    """Nothing changes in truth: McNemar's test, and the one-sided tests of the source and of the mean bystander."""
    rng = np.random.default_rng(seed)
    at = worlds.held_out(0)
    p: dict[str, list[float]] = {}
    for _ in range(studies):
        logit = 1.3 + 0.3 * rng.standard_normal(at.size)
        shift = 0.5 * rng.standard_normal(at.size)
        before, after, _ = worlds.answers(rng, logit[:1], logit[:1], worlds.QUESTIONS)
        p.setdefault("McNemar, 586 questions", []).append(float(mcnemar(before, after)[0]))
        p.setdefault("source change, 586 questions", []).append(crossed((before - after)[None, 0], (0, 1)).p)
        few = worlds.answers(rng, logit[:1] - 1.3, logit[:1] - 1.3, 60)
        p.setdefault("McNemar, 60 questions", []).append(float(mcnemar(few[0], few[1])[0]))
        changes = worlds.measured(rng, shift, worlds.OPEN_QUESTIONS, 0.5)
        p.setdefault("mean bystander change, 24 questions", []).append(crossed(changes[None], EVERYTHING).p)
    for name, values in p.items():
        yield level(name, "nothing changes in truth", values)


def null_timing(studies: int, seed: int = 8) -> Iterator[CalibrationLine]:
    """Everybody in step: leakage follows similarity (0.6), and everyone's share of it comes on the same trajectory."""
    rng = np.random.default_rng(seed)
    for personas in (8, 108):
        p: list[float] = []
        for _ in range(studies):
            x = rng.standard_normal(personas)
            final = 0.3 * np.exp(0.5 * (0.6 * x + 0.8 * rng.standard_normal(personas)))
            found = _timings(rng, np.outer(final, [0.3, 0.6, 0.85, 1.0]), 0.03)
            known = np.isfinite(found)
            if known.sum() > 3:
                p.append(float(permutation_p(x[known][None], found[known], 999, 0)[0]))
        yield level(
            f"timing correlation: half, {personas} bystanders", "everybody in step, leakage follows similarity", p
        )


def _timings(rng: np.random.Generator, leakage: Floats, error: float) -> Floats:
    noisy = leakage + error * rng.standard_normal(leakage.shape)
    times = np.array([0.25, 0.5, 0.75, 1.0])
    return np.array([timing(times, curve, np.full(4, error)).half_point for curve in noisy])
