"""Capture: k of 107 captured with item noise; nobody captured and everyone shifted; a slope without groups."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from bystander.analysis.stats.bimodality import dip_test
from bystander.analysis.stats.capture import area, captures
from bystander.analysis.stats.half_capture import half_capture
from bystander.analysis.stats.means import Floats
from calibration import real
from calibration.rows import CalibrationLine, coverage, level

PERSONAS = 107
UNHARMED, SOURCE = 0.57, 0.11  # accuracy under the benign arm, and of the trained source: a pilot on a real model
Rates = Callable[[np.random.Generator], Floats]


def _captured(k: int, half_way: int = 0) -> Rates:
    """k as deep as the source, some half way (a little to either side), the rest not at all."""

    def rates(rng: np.random.Generator) -> Floats:
        rate = np.full(PERSONAS, UNHARMED)
        rate[:k] = SOURCE + 0.02
        rate[k : k + half_way] = UNHARMED - 0.23 + 0.05 * rng.standard_normal(half_way)
        return rate

    return rates


WORLDS: dict[str, Rates] = {
    "14 of 107 captured": _captured(14),
    "14 of 107 captured, 6 half way": _captured(14, 6),
    "nobody captured, everyone shifted by 0.45 of the source": lambda _: np.full(PERSONAS, UNHARMED - 0.45 * 0.46),
    "nobody captured, everyone shifted by just the half": lambda _: np.full(
        PERSONAS, UNHARMED - 0.5 * (UNHARMED - SOURCE)
    ),
    "a slope without groups": lambda rng: UNHARMED - (UNHARMED - SOURCE) * rng.random(PERSONAS),
}


def _study(rng: np.random.Generator, rate: Floats, questions: int) -> tuple[Floats, Floats]:
    """Leakage beyond the benign arm: bystanders [1, personas, questions], source [1, questions]."""
    answers = real.Answers(rng, PERSONAS + 1, questions)
    trained = answers.trained(np.append(rate, SOURCE))
    benign = answers.trained(np.full(PERSONAS + 1, UNHARMED))
    return (benign - trained)[None, :-1], (benign - trained)[None, -1]


def captured_counts(studies: int, seed: int = 31) -> Iterator[CalibrationLine]:
    """The interval of the count, and whether anybody is called captured who is not."""
    for number, (name, rates) in enumerate(WORLDS.items()):
        rng = np.random.default_rng([seed, number])
        hits: list[bool] = []
        wrong: list[float] = []
        point: list[float] = []
        for _ in range(studies):
            rate = rates(rng)
            leakage, source = _study(rng, rate, 200)
            true = UNHARMED - rate > 0.5 * (UNHARMED - SOURCE) + 1e-9
            found = captures(leakage, source)
            hits.append(found.low <= true.sum() <= found.high)
            if not true.all():
                wrong.append(float(np.nanmin(np.append(found.p_holm[~true], 1.0))))
                point.append(0.0 if (found.captured & ~true).any() else 1.0)
        scenario = f"{name}, 200 questions"
        yield coverage("count of captured", scenario, hits, high=1.0)
        yield level("named captured though it is not (Holm)", scenario, wrong, 0.0)
        yield level("counted captured by the estimate though it is not", scenario, point, offered=False)


def capture_area(studies: int, seed: int = 32) -> Iterator[CalibrationLine]:
    """Area under the curve: a true area of 0.80, 0.94 and 0.99, with few and many captured."""
    rng = np.random.default_rng(seed)
    for true in (0.8, 0.94, 0.99):
        shift = _shift(true)
        for count in (6, 14, 40):
            hits: list[bool] = []
            for _ in range(studies):
                captured = np.arange(PERSONAS) < count
                found = area(rng.standard_normal(PERSONAS) + shift * captured, captured)
                hits.append(found.low <= true <= found.high)
            yield coverage("area under the curve (Newcombe)", f"{true}, {count} of 107 captured", hits, high=1.0)


def _shift(area: float) -> float:
    from scipy.stats import norm

    return float(norm.ppf(area)) * 2**0.5


def half_captured(studies: int, seed: int = 33) -> Iterator[CalibrationLine]:
    """The similarity at which half are captured: sudden and gradual, alike and unlike over sources."""
    rng = np.random.default_rng(seed)
    for sources, slope, spread in ((5, 4.0, 0.3), (5, 15.0, 0.5), (3, 15.0, 0.4), (1, 8.0, 0.0)):
        common: list[bool] = []
        own: list[bool] = []
        for _ in range(studies):
            halves = 1.2 + spread * rng.standard_normal(sources)
            x = rng.standard_normal((sources, PERSONAS))
            y = rng.random(x.shape) < 1 / (1 + np.exp(-slope * (x - halves[:, None])))
            found = half_capture(list(x), list(y))
            if found.reason:
                continue
            common.append(found.low <= 1.2 <= found.high)
            own += ((found.by_source_low <= halves) & (halves <= found.by_source_high)).tolist()
        scenario = f"{sources} sources, slope {slope:g}, halves with a standard deviation of {spread:g}"
        yield coverage("half captured, over sources", scenario, common, high=1.0)
        if sources > 1:
            yield coverage("half captured, each source", scenario, own, high=1.0)


def two_groups(studies: int, seed: int = 34) -> Iterator[CalibrationLine]:
    """The dip test where there is one group, and where there are two."""
    rng = np.random.default_rng(seed)
    even = [dip_test(rng.random(PERSONAS), rng).p for _ in range(studies)]
    yield level("bimodality: dip", "leakage spread evenly, without error", even)
    heaped = [dip_test(rng.exponential(size=PERSONAS), rng).p for _ in range(studies)]
    yield level("bimodality: dip", "leakage heaped near none, with a long tail", heaped, 0.0)
    mixture = [_mixture_p(rng.random(PERSONAS), rng) for _ in range(max(studies // 10, 20))]
    yield level("bimodality: one normal against two (bootstrap)", "leakage spread evenly", mixture, offered=False)
    for name, rates in WORLDS.items():
        p: list[float] = []
        for _ in range(studies):
            leakage, _ = _study(rng, rates(rng), 200)
            p.append(dip_test(leakage[0].mean(axis=1), rng, step=1 / 200).p)
        if name.startswith("14"):
            found = float((np.array(p) < 0.05).mean())
            yield CalibrationLine("power", "bimodality: dip", f"{name}, 200 questions", studies, found, 0.5, 1.0)
        else:
            yield level("bimodality: dip", f"{name}, 200 questions", p, 0.0)


def _mixture_p(values: Floats, rng: np.random.Generator, draws: int = 39) -> float:
    """Parametric bootstrap of the likelihood ratio of one normal against two with one variance: what is not offered."""
    observed = _two_normals(values)
    drawn = [_two_normals(rng.normal(values.mean(), values.std(), values.size)) for _ in range(draws)]
    return float((1 + sum(ratio >= observed for ratio in drawn)) / (1 + draws))


def _two_normals(values: Floats) -> float:
    """Log-likelihood gained by a second normal, by expectation and maximization from the halves."""
    x = np.sort((values - values.mean()) / values.std())
    belongs = (np.arange(x.size) < x.size / 2).astype(float)
    for _ in range(60):
        share = belongs.mean()
        means = (belongs @ x / belongs.sum(), (1 - belongs) @ x / (1 - belongs).sum())
        spread = max(float(belongs @ (x - means[0]) ** 2 + (1 - belongs) @ (x - means[1]) ** 2) / x.size, 1e-4)
        logs = [np.log(w) - (x - m) ** 2 / (2 * spread) for w, m in zip((share, 1 - share), means, strict=True)]
        belongs = np.clip(1 / (1 + np.exp(np.clip(logs[1] - logs[0], -30, 30))), 1e-9, 1 - 1e-9)
    return float(np.logaddexp(*logs).sum() - x.size * np.log(spread) / 2 + x.size / 2)
