"""Planted effects: are they recovered without bias, do intervals cover them, is the promised power there?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from bystander.analysis.stats.intervals import bca, bounded, crossed
from bystander.analysis.stats.power import smallest_rho
from bystander.analysis.stats.ranks import permutation_p
from bystander.analysis.stats.ratio import leakage_ratio
from bystander.analysis.tables.pooled import pooled_columns
from bystander.analysis.tables.sample import EVERYTHING, Sample
from bystander.analysis.tables.similarity_correlation import similarity_correlations
from calibration import worlds
from calibration.rows import INTERVALS, CalibrationLine, Floats, bias, coverage, sample_at, sources_of
from calibration.worlds import WorldShape


def correlation_recovery(studies: int, seed: int = 9) -> Iterator[CalibrationLine]:
    """Planted correlations: bias and coverage of rho, as measured and corrected, for one source and over five."""
    for planted in (0.3, 0.6):
        for questions, reliability in ((worlds.QUESTIONS, 0.9), (worlds.OPEN_QUESTIONS, 0.7)):
            yield from _recovery(studies, planted, questions, reliability, seed)
        yield from _pooled_recovery(max(studies // 2, 20), planted, seed)


def _recovery(studies: int, planted: float, questions: int, reliability: float, seed: int) -> Iterator[CalibrationLine]:
    rng = np.random.default_rng([seed, int(planted * 10), questions])
    r = worlds.pearson_for(planted)
    at = worlds.held_out(0)
    as_measured = worlds.spearman_of_normals(r * reliability**0.5)
    got: dict[str, list[float]] = {"rho": [], "rho_corrected": []}
    hits: dict[str, list[bool]] = {"rho": [], "rho_corrected": []}
    for _ in range(studies):
        x, leakage = worlds.truth(rng, WorldShape(correlation=r), 1)
        changes = worlds.measured(rng, leakage[0, at], questions, reliability)
        c = {
            name: float(column[0])
            for name, column in similarity_correlations(x[:, at], sample_at(changes, at), INTERVALS).items()
        }
        got["rho"].append(c["rho"])
        hits["rho"].append(c["low"] <= as_measured <= c["high"])
        if "rho_corrected" in c:
            got["rho_corrected"].append(c["rho_corrected"])
            hits["rho_corrected"].append(c["corrected_low"] <= planted <= c["corrected_high"])
    scenario = f"planted {planted:g}, {questions} questions, reliability {reliability:g}"
    yield bias("rho, against the truth as measured", scenario, got["rho"], as_measured)
    yield bias("rho_corrected, against the planted", scenario, got["rho_corrected"], planted)
    yield coverage("rho", scenario, hits["rho"])
    yield coverage("rho_corrected", scenario, hits["rho_corrected"])


def _pooled_recovery(studies: int, planted: float, seed: int) -> Iterator[CalibrationLine]:
    rng = np.random.default_rng([seed, int(planted * 10), 5])
    r = worlds.pearson_for(planted)
    reliability = 0.9
    true = worlds.spearman_of_normals(r * reliability**0.5)
    got: list[float] = []
    hits: list[bool] = []
    for _ in range(studies):
        x, leakage = worlds.truth(rng, WorldShape(correlation=r, own=(0.8, 0.8), persona=(0.6, 0.6), common=r))
        columns = pooled_columns(sources_of(rng, x, leakage, 60, reliability), INTERVALS)
        got.append(float(columns["rho"][0]))
        hits.append(bool(columns["low"][0] <= true <= columns["high"][0]))
    scenario = f"planted {planted:g}, five sources, persona effects, reliability 0.9"
    yield bias("pooled rho, against the truth as measured", scenario, got, true)
    yield coverage("pooled rho", scenario, hits)


def hard_intervals(studies: int, seed: int = 10) -> Iterator[CalibrationLine]:
    """The interval of rho where it is hardest: clusters, few questions that bring out the correlation unequally, 11 personas."""
    rng = np.random.default_rng(seed)
    at = worlds.held_out(0)
    fixed = worlds.truth(np.random.default_rng(99), WorldShape(own=(0.0, 0.0), category=(1.0, 1.0), between=0.5), 1)
    r = worlds.pearson_for(0.3)
    big = [np.tile(part[0], 2_000) for part in fixed]
    one, two = np.random.default_rng(98).standard_normal((2, big[0].size))
    error = (big[1].var() + 1) ** 0.5 * (1 / 0.8 - 1) ** 0.5
    noise = np.random.default_rng(97).standard_normal(big[0].size) * error
    true = worlds.population_rho(big[0] + one, big[1] + r * one + (1 - r**2) ** 0.5 * two + noise)
    clusters: list[bool] = []
    for _ in range(studies):
        x, leakage = worlds.truth(rng, WorldShape(correlation=r), 1)
        x, leakage = x + fixed[0], leakage + fixed[1]
        changes = worlds.measured(rng, leakage[0, at], 60, 0.8)
        c = similarity_correlations(x[:, at], sample_at(changes, at), INTERVALS)
        clusters.append(bool(c["low"][0] <= true <= c["high"][0]))
    yield coverage("rho", "planted 0.3 inside categories whose means go together", clusters)
    yield from _unequal_questions(studies, rng)
    yield from _few_personas(studies, rng)


def _unequal_questions(studies: int, rng: np.random.Generator) -> Iterator[CalibrationLine]:
    """Each question has a correlation of its own around the mean one: 24 questions are a sample of correlations."""
    at = worlds.held_out(0)
    r, tau, questions, reliability = worlds.pearson_for(0.3), 1.0, worlds.OPEN_QUESTIONS, 0.8
    noise = 1 / reliability - 1
    slopes = np.random.default_rng(96).standard_normal(20_000) * tau / questions**0.5
    deviation = (slopes**2 + 2 * slopes * r + 1 + noise) ** 0.5
    true = float(np.mean(6 / np.pi * np.arcsin((r + slopes) / deviation / 2)))
    hits: list[bool] = []
    alone: list[bool] = []
    for _ in range(studies):
        x, leakage = worlds.truth(rng, WorldShape(correlation=r), 1)
        changes = worlds.measured(rng, leakage[0, at], questions, reliability, tau * x[0, at])
        c = similarity_correlations(x[:, at], sample_at(changes, at), INTERVALS)
        hits.append(bool(c["low"][0] <= true <= c["high"][0]))
        flat = similarity_correlations(x[:, at], sample_at(changes.mean(axis=1, keepdims=True), at), INTERVALS)
        alone.append(bool(flat["low"][0] <= true <= flat["high"][0]))
    scenario = "planted 0.3, 24 questions with correlations of their own"
    yield coverage("rho", scenario, hits)
    yield coverage("rho, bootstrap over personas alone", scenario, alone, offered=False)


def _few_personas(studies: int, rng: np.random.Generator) -> Iterator[CalibrationLine]:
    r = worlds.pearson_for(0.3)
    true = worlds.spearman_of_normals(r * 0.9**0.5)
    hits: list[bool] = []
    for _ in range(studies):
        x = rng.standard_normal(11)
        leakage = r * x + (1 - r**2) ** 0.5 * rng.standard_normal(11)
        changes = leakage[:, None] + rng.standard_normal((11, 60)) * ((1 / 0.9 - 1) * 60) ** 0.5
        c = similarity_correlations(x[None], Sample(changes[None]), replace(INTERVALS, resamples=2_000))
        hits.append(bool(c["low"][0] <= true <= c["high"][0]))
    yield coverage("rho", "planted 0.3, 11 personas", hits)


def mean_intervals(studies: int, seed: int = 11) -> Iterator[CalibrationLine]:
    """Intervals of leakage by persona, of means over personas, with one seed and with three, and of the leakage ratio."""
    rng = np.random.default_rng(seed)
    hits: dict[str, list[bool]] = {}

    def note(name: str, low: float, value: float, high: float) -> None:
        hits.setdefault(name, []).append(bool(low <= value <= high))

    for _ in range(studies):
        for questions in (worlds.QUESTIONS, 40):
            before, after, true = worlds.answers(rng, np.array([1.3]), np.array([0.9]), questions)
            ends = bca(after - before, 1_000, 0)
            note(f"leakage (BCa), accuracy, {questions} questions", ends[0][0], true[0], ends[1][0])
        for questions in (worlds.OPEN_QUESTIONS, worlds.MARKER_QUESTIONS):
            values = rng.normal(8, 20, (1, questions))
            ends = bca(values, 1_000, 0)
            note(f"leakage (BCa), judged score, {questions} questions", ends[0][0], 8.0, ends[1][0])
        for questions, seeds in ((60, 1), (60, 3), (worlds.OPEN_QUESTIONS, 3)):
            changes = _crossed_world(rng, seeds, 108, questions)
            mean = crossed(changes, EVERYTHING)
            note(f"mean bystander change, {seeds} seeds, {questions} questions", mean.low, 0.1, mean.high)
            own = 0.5 + 3 * (_crossed_world(rng, seeds, 1, questions)[:, 0] - 0.1)
            source = crossed(own, (0, 1))
            note(f"source change, {seeds} seeds, {questions} questions", source.low, 0.5, source.high)
            found = leakage_ratio(changes, own)
            low, high = found.low, found.high
            if np.isfinite(low):
                note(f"leakage ratio (Fieller), {seeds} seeds, {questions} questions", low, 0.2, high)
        category = crossed(_crossed_world(rng, 1, 10, 60), EVERYTHING)
        note("category mean, 10 personas", category.low, 0.1, category.high)
    for name, values in hits.items():
        yield coverage(name, "planted change", values)


def _crossed_world(rng: np.random.Generator, seeds: int, personas: int, questions: int) -> Floats:
    """[seeds, personas, questions] with effects of seed, persona, question and answer around 0.1. One seed or one persona
    is that very one: its effect is part of the truth, so it has none."""
    changes = 0.1 + 0.3 * rng.standard_normal((seeds, personas, questions))
    changes += 0.1 * rng.standard_normal((1, 1, questions))
    if personas > 1:
        changes += 0.08 * rng.standard_normal((1, personas, 1)) + 0.03 * rng.standard_normal((seeds, personas, 1))
    if seeds > 1:
        changes += 0.02 * rng.standard_normal((seeds, 1, 1))
    return changes


def few_questions(studies: int, seed: int = 13) -> Iterator[CalibrationLine]:
    """Fractions of which the questions show few changes: rare changes, and probabilities near 0 or 1."""
    rng = np.random.default_rng(seed)
    hits: dict[tuple[str, str], list[bool]] = {}

    def note(name: str, scenario: str, ends: tuple[Floats, Floats], value: float) -> None:
        hits.setdefault((name, scenario), []).append(bool(ends[0][0] <= value <= ends[1][0]))

    near = {centre: float(np.mean(_probability(rng, centre, 1_000_000))) for centre in (-4.0, 6.0)}
    for _ in range(studies):
        before, after, true = worlds.answers(rng, np.array([2.5]), np.array([2.0]), 40)
        change = after - before
        for name, ends in (("BCa", bca(change, 1_000, 0)), ("bounded", bounded(change))):
            note(f"leakage ({name})", "rare changes: accuracy 0.92 to 0.88, 40 questions", ends, float(true[0]))
        for centre, true_mean in near.items():
            values = _probability(rng, centre, worlds.MARKER_QUESTIONS)[None]
            for name, ends in (("BCa", bca(values, 1_000, 0)), ("bounded", bounded(values))):
                note(f"leakage ({name})", f"marker probability, mean {true_mean:.2f}, 8 questions", ends, true_mean)
    for (name, scenario), values in hits.items():
        held = "bounded" in name
        yield coverage(name, scenario, values, held, 1.0 if held else 0.975)


def _probability(rng: np.random.Generator, centre: float, questions: int) -> Floats:
    """Probabilities [questions] that lie near 0 or 1 and now and then do not."""
    return 1 / (1 + np.exp(-(centre + 2 * rng.standard_normal(questions))))


def power_promise(studies: int, seed: int = 12) -> Iterator[CalibrationLine]:
    """The effect that the power table calls detectable is found in 80 % of studies."""
    rng = np.random.default_rng(seed)
    for personas, reliability in ((11, 1.0), (108, 1.0), (108, 0.7)):
        r = worlds.pearson_for(smallest_rho(personas, reliability=reliability))
        found = 0
        for _ in range(studies):
            x = rng.standard_normal(personas)
            leakage = r * x + (1 - r**2) ** 0.5 * rng.standard_normal(personas)
            y = leakage + rng.standard_normal(personas) * (1 / reliability - 1) ** 0.5
            found += bool(permutation_p(x[None], y, 999, 0)[0] < 0.05)
        scenario = f"smallest_rho, {personas} personas, reliability {reliability:g}"
        yield CalibrationLine("power", "similarity correlation: p", scenario, studies, found / studies, 0.77, 0.83)
