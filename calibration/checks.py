"""Each check simulates studies and returns, per statistic, what it promised and what it did."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kstest

from bystander.analysis.evolution import timing
from bystander.analysis.gradient import Sample, gradients
from bystander.analysis.groups import EVERYTHING, containment
from bystander.analysis.intervals import bca, bounded, crossed
from bystander.analysis.leakage import mcnemar
from bystander.analysis.pooled import (
    SourceSample,
    crossing,
    matrix_permutation,
    mixed_model,
    pooled_columns,
    stratified_permutation,
)
from bystander.analysis.power import smallest_rho
from bystander.analysis.ranks import p_two_sided, partial_spearman, permutation_p, permutations
from bystander.analysis.settings import Settings
from calibration import worlds
from calibration.worlds import Shape

Floats = NDArray[np.float64]
TESTS = Settings(permutations=999, partial_permutations=999, resamples=4)  # where only p-values are looked at
INTERVALS = Settings(permutations=9, partial_permutations=9, resamples=600)  # where only intervals are


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `kind`: level (share of p < 0.05 under no effect), coverage, bias or power."""

    kind: str
    statistic: str
    scenario: str
    studies: int
    figure: float
    low: float  # what is accepted
    high: float
    ks: float | None = None  # Kolmogorov-Smirnov p of uniformity, for levels
    offered: bool = True  # False: shown to say why it is not offered, or not for this question

    @property
    def keeps(self) -> bool:
        """Within what is accepted."""
        return self.low <= self.figure <= self.high


def level(
    statistic: str, scenario: str, p: list[float], low: float = 0.035, high: float = 0.065, offered: bool = True
) -> Row:
    """Share of studies in which a true null is rejected at 5 %."""
    values = np.array(p)
    ks = float(kstest(values + np.random.default_rng(0).uniform(-0.0005, 0.0005, values.size), "uniform").pvalue)
    return Row("level", statistic, scenario, len(p), float((values < 0.05).mean()), low, high, ks, offered)


def coverage(statistic: str, scenario: str, hits: list[bool], offered: bool = True, high: float = 0.975) -> Row:
    """Share of 95 % intervals that hold the truth. `high` 1: an interval that promises at least 95 %."""
    return Row("coverage", statistic, scenario, len(hits), float(np.mean(hits)), 0.92, high, None, offered)


def bias(statistic: str, scenario: str, estimates: list[float], true: float, offered: bool = True) -> Row:
    """Mean estimate minus truth."""
    return Row(
        "bias", statistic, scenario, len(estimates), float(np.mean(estimates)) - true, -0.02, 0.02, None, offered
    )


def _sample(changes: Floats, at: NDArray[np.intp], **facts: Floats) -> Sample:
    return Sample(changes[None], tuple(np.array(worlds.LABELS)[at]), facts.get("length"), facts.get("baseline"))


def null_gradients(studies: int, seed: int = 1) -> Iterator[Row]:
    """No effect: personas exchangeable; similarity has categories and persona effects, leakage persona effects only."""
    rng = np.random.default_rng(seed)
    p: dict[str, list[float]] = {}
    at = worlds.held_out(0)
    for _ in range(studies):
        x, leakage = worlds.truth(rng, Shape(persona=(0.7, 0.7), category=(0.7, 0.0)), 1)
        changes = worlds.measured(rng, leakage[0, at], worlds.QUESTIONS, 0.8)
        length, baseline = rng.poisson(20, at.size).astype(float), rng.normal(size=at.size)
        columns = gradients(x[:, at], _sample(changes, at, length=length, baseline=baseline), TESTS)
        for name in ("p", "p_within_category", "partial_prompt_length_p", "partial_baseline_p", "partial_category_p"):
            p.setdefault(name, []).append(float(columns[name][0]))
    for name, values in p.items():
        yield level(f"gradient: {name}", "no effect, personas exchangeable", values)


def null_within_categories(studies: int, seed: int = 2) -> Iterator[Row]:
    """Category means of similarity and leakage go together (0.9); inside categories there is nothing."""
    rng = np.random.default_rng(seed)
    at = worlds.held_out(0)
    p: dict[str, list[float]] = {"p": [], "p_within_category": [], "partial_category_p": []}
    for _ in range(studies):
        x, leakage = worlds.truth(rng, Shape(category=(1.0, 1.0), between=0.9), 1)
        changes = worlds.measured(rng, leakage[0, at], worlds.QUESTIONS, 0.8)
        columns = gradients(x[:, at], _sample(changes, at), TESTS)
        for name, values in p.items():
            values.append(float(columns[name][0]))
    scenario = "category means go together, nothing inside categories"
    yield level("gradient: p_within_category", scenario, p["p_within_category"])
    yield level("gradient: partial_category_p", scenario, p["partial_category_p"])
    yield level("gradient: p, read as a gradient inside categories", scenario, p["p"], offered=False)


def null_prompt_length(studies: int, seed: int = 3) -> Iterator[Row]:
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
    yield level("gradient: partial_prompt_length_p", "prompt length moves both", p)
    yield level(
        "gradient: partial_prompt_length_p", "prompt length moves both, rounded to whole tokens", raw, 0.035, 0.08
    )


def _sources(
    rng: np.random.Generator, x: Floats, leakage: Floats, questions: int, reliability: float
) -> list[SourceSample]:
    sources: list[SourceSample] = []
    for source in range(len(x)):
        at = worlds.held_out(source)
        changes = worlds.measured(rng, leakage[source, at], questions, reliability)
        names = tuple(np.array(worlds.NAMES)[at])
        sources.append(SourceSample(names, _sample(changes, at), x[source : source + 1, at]))
    return sources


def null_pooled(studies: int, seed: int = 4) -> Iterator[Row]:
    """Five sources, persona effects in similarity and in leakage that have nothing to do with each other."""
    rng = np.random.default_rng(seed)
    p: dict[str, list[float]] = {"p_matrix": [], "p_within_category": [], "p_stratified": [], "plain": []}
    for _ in range(studies):
        x, leakage = worlds.truth(rng, Shape(persona=(1.0, 1.0)))
        sources = _sources(rng, x, leakage, 60, 0.8)
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


def null_pooled_clusters(studies: int, seed: int = 5) -> Iterator[Row]:
    """Five sources; persona parts of both go together (0.9), and category parts too: only pairs hold nothing."""
    rng = np.random.default_rng(seed)
    specific: list[float] = []
    within: list[float] = []
    for _ in range(studies):
        x, leakage = worlds.truth(rng, Shape(persona=(1.0, 1.0), common=0.9))
        sources = _sources(rng, x, leakage, 24, 0.8)
        specific.append(float(stratified_permutation(crossing(sources), TESTS)[1][0]))
        x, leakage = worlds.truth(rng, Shape(persona=(0.7, 0.7), category=(1.0, 1.0), between=0.9))
        sources = _sources(rng, x, leakage, 24, 0.8)
        data = crossing(sources, within_category=True)
        within.append(float(matrix_permutation(data, TESTS, within_category=True)[1][0]))
    yield level("pooled: p_stratified", "persona effects go together, nothing specific to pairs", specific)
    yield level("pooled: p_within_category", "category means go together, nothing inside categories", within)


def null_mixed_model(studies: int, seed: int = 6) -> Iterator[Row]:
    """As `null_pooled`, for the mixed model; and its interval."""
    rng = np.random.default_rng(seed)
    p: list[float] = []
    failed = 0
    for _ in range(studies):
        x, leakage = worlds.truth(rng, Shape(persona=(1.0, 1.0)))
        leakage += 0.5 * rng.standard_normal((worlds.SOURCES, 1))
        fit = mixed_model(_sources(rng, x, leakage, 2, 0.8), 0)
        failed += not np.isfinite(fit[3])
        p += [fit[3]] if np.isfinite(fit[3]) else []
    yield level(f"pooled: slope_p ({failed} of {studies} did not converge)", "no effect, persona and source effects", p)


def null_means(studies: int, seed: int = 7) -> Iterator[Row]:
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


def null_spread(studies: int, seed: int = 8) -> Iterator[Row]:
    """Everybody in step: leakage follows similarity (0.6), and everyone's share of it comes on the same course."""
    rng = np.random.default_rng(seed)
    for personas in (8, 108):
        p: list[float] = []
        for _ in range(studies):
            x = rng.standard_normal(personas)
            final = 0.3 * np.exp(0.5 * (0.6 * x + 0.8 * rng.standard_normal(personas)))
            found = _timings(rng, np.outer(final, [0.3, 0.6, 0.85, 1.0]), 0.03)
            kept = np.isfinite(found)
            if kept.sum() > 3:
                p.append(float(permutation_p(x[kept][None], found[kept], 999, 0)[0]))
        yield level(f"spread: half, {personas} bystanders", "everybody in step, leakage follows similarity", p)


def _timings(rng: np.random.Generator, leakage: Floats, error: float) -> Floats:
    noisy = leakage + error * rng.standard_normal(leakage.shape)
    times = np.array([0.25, 0.5, 0.75, 1.0])
    return np.array([timing(times, curve, np.full(4, error)).half_point for curve in noisy])


def gradient_recovery(studies: int, seed: int = 9) -> Iterator[Row]:
    """Planted gradients: bias and coverage of rho, as measured and corrected, for one source and over five."""
    for planted in (0.3, 0.6):
        for questions, reliability in ((worlds.QUESTIONS, 0.9), (worlds.OPEN_QUESTIONS, 0.7)):
            yield from _recovery(studies, planted, questions, reliability, seed)
        yield from _pooled_recovery(max(studies // 2, 20), planted, seed)


def _recovery(studies: int, planted: float, questions: int, reliability: float, seed: int) -> Iterator[Row]:
    rng = np.random.default_rng([seed, int(planted * 10), questions])
    r = worlds.pearson_for(planted)
    at = worlds.held_out(0)
    as_measured = worlds.spearman_of_normals(r * reliability**0.5)
    got: dict[str, list[float]] = {"rho": [], "rho_corrected": []}
    hits: dict[str, list[bool]] = {"rho": [], "rho_corrected": []}
    for _ in range(studies):
        x, leakage = worlds.truth(rng, Shape(gradient=r), 1)
        changes = worlds.measured(rng, leakage[0, at], questions, reliability)
        c = {name: float(column[0]) for name, column in gradients(x[:, at], _sample(changes, at), INTERVALS).items()}
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


def _pooled_recovery(studies: int, planted: float, seed: int) -> Iterator[Row]:
    rng = np.random.default_rng([seed, int(planted * 10), 5])
    r = worlds.pearson_for(planted)
    reliability = 0.9
    true = worlds.spearman_of_normals(r * reliability**0.5)
    got: list[float] = []
    hits: list[bool] = []
    for _ in range(studies):
        x, leakage = worlds.truth(rng, Shape(gradient=r, own=(0.8, 0.8), persona=(0.6, 0.6), common=r))
        columns = pooled_columns(_sources(rng, x, leakage, 60, reliability), INTERVALS)
        got.append(float(columns["rho"][0]))
        hits.append(bool(columns["low"][0] <= true <= columns["high"][0]))
    scenario = f"planted {planted:g}, five sources, persona effects, reliability 0.9"
    yield bias("pooled rho, against the truth as measured", scenario, got, true)
    yield coverage("pooled rho", scenario, hits)


def hard_intervals(studies: int, seed: int = 10) -> Iterator[Row]:
    """The interval of rho where it is hardest: clusters, few questions that bring out the gradient unequally, 11 personas."""
    rng = np.random.default_rng(seed)
    at = worlds.held_out(0)
    fixed = worlds.truth(np.random.default_rng(99), Shape(own=(0.0, 0.0), category=(1.0, 1.0), between=0.5), 1)
    r = worlds.pearson_for(0.3)
    big = [np.tile(part[0], 2_000) for part in fixed]
    one, two = np.random.default_rng(98).standard_normal((2, big[0].size))
    error = (big[1].var() + 1) ** 0.5 * (1 / 0.8 - 1) ** 0.5
    noise = np.random.default_rng(97).standard_normal(big[0].size) * error
    true = worlds.population_rho(big[0] + one, big[1] + r * one + (1 - r**2) ** 0.5 * two + noise)
    clusters: list[bool] = []
    for _ in range(studies):
        x, leakage = worlds.truth(rng, Shape(gradient=r), 1)
        x, leakage = x + fixed[0], leakage + fixed[1]
        changes = worlds.measured(rng, leakage[0, at], 60, 0.8)
        c = gradients(x[:, at], _sample(changes, at), INTERVALS)
        clusters.append(bool(c["low"][0] <= true <= c["high"][0]))
    yield coverage("rho", "planted 0.3 inside categories whose means go together", clusters)
    yield from _unequal_questions(studies, rng)
    yield from _few_personas(studies, rng)


def _unequal_questions(studies: int, rng: np.random.Generator) -> Iterator[Row]:
    """Each question has a gradient of its own around the mean one: 24 questions are a sample of gradients."""
    at = worlds.held_out(0)
    r, tau, questions, reliability = worlds.pearson_for(0.3), 1.0, worlds.OPEN_QUESTIONS, 0.8
    noise = 1 / reliability - 1
    slopes = np.random.default_rng(96).standard_normal(20_000) * tau / questions**0.5
    spread = (slopes**2 + 2 * slopes * r + 1 + noise) ** 0.5
    true = float(np.mean(6 / np.pi * np.arcsin((r + slopes) / spread / 2)))
    hits: list[bool] = []
    alone: list[bool] = []
    for _ in range(studies):
        x, leakage = worlds.truth(rng, Shape(gradient=r), 1)
        changes = worlds.measured(rng, leakage[0, at], questions, reliability, tau * x[0, at])
        c = gradients(x[:, at], _sample(changes, at), INTERVALS)
        hits.append(bool(c["low"][0] <= true <= c["high"][0]))
        flat = gradients(x[:, at], _sample(changes.mean(axis=1, keepdims=True), at), INTERVALS)
        alone.append(bool(flat["low"][0] <= true <= flat["high"][0]))
    scenario = "planted 0.3, 24 questions with gradients of their own"
    yield coverage("rho", scenario, hits)
    yield coverage("rho, bootstrap over personas alone", scenario, alone, offered=False)


def _few_personas(studies: int, rng: np.random.Generator) -> Iterator[Row]:
    r = worlds.pearson_for(0.3)
    true = worlds.spearman_of_normals(r * 0.9**0.5)
    hits: list[bool] = []
    for _ in range(studies):
        x = rng.standard_normal(11)
        leakage = r * x + (1 - r**2) ** 0.5 * rng.standard_normal(11)
        changes = leakage[:, None] + rng.standard_normal((11, 60)) * ((1 / 0.9 - 1) * 60) ** 0.5
        c = gradients(x[None], Sample(changes[None]), INTERVALS)
        hits.append(bool(c["low"][0] <= true <= c["high"][0]))
    yield coverage("rho", "planted 0.3, 11 personas", hits)


def mean_intervals(studies: int, seed: int = 11) -> Iterator[Row]:
    """Intervals of leakage by persona, of means over personas, with one seed and with three, and of containment."""
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
            _, low, high = containment(own, changes)
            if np.isfinite(low):
                note(f"containment (Fieller), {seeds} seeds, {questions} questions", low, 0.2, high)
        category = crossed(_crossed_world(rng, 1, 10, 60), EVERYTHING)
        note("category mean, 10 personas", category.low, 0.1, category.high)
    for name, values in hits.items():
        yield coverage(name, "planted change", values)


def few_questions(studies: int, seed: int = 13) -> Iterator[Row]:
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


def power_promise(studies: int, seed: int = 12) -> Iterator[Row]:
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
        yield Row("power", "gradient: p", scenario, studies, found / studies, 0.77, 0.83)


CHECKS: dict[str, tuple[Callable[[int], Iterator[Row]], int]] = {  # check, studies of the full run
    "null_gradients": (null_gradients, 1_000),
    "null_within_categories": (null_within_categories, 1_000),
    "null_prompt_length": (null_prompt_length, 1_000),
    "null_pooled": (null_pooled, 1_000),
    "null_pooled_clusters": (null_pooled_clusters, 1_000),
    "null_mixed_model": (null_mixed_model, 250),
    "null_means": (null_means, 1_000),
    "null_spread": (null_spread, 1_000),
    "gradient_recovery": (gradient_recovery, 1_000),
    "hard_intervals": (hard_intervals, 1_000),
    "mean_intervals": (mean_intervals, 1_000),
    "few_questions": (few_questions, 1_000),
    "power_promise": (power_promise, 1_000),
}
