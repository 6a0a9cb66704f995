"""The baseline: everybody learns to one level and nothing leaks. What the change takes for a similarity gradient, and what does not."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.stats import rankdata

from bystander.analysis.stats.baseline import slopes_given_baseline
from bystander.analysis.stats.benign import beyond_benign, deficit, per_bystander
from bystander.analysis.stats.intervals import crossed
from bystander.analysis.stats.means import Floats
from bystander.analysis.stats.ranks import partial_spearman, permutation_p
from bystander.analysis.tables.sample import EVERYTHING
from calibration import real
from calibration.rows import CalibrationLine, coverage, level

PERMUTATIONS = 499
QUESTIONS = 300
LEVEL = 0.62  # where everybody ends


def benign_arm(studies: int, seed: int = 21) -> Iterator[CalibrationLine]:
    """Real baselines; both trainings bring everybody to one level; similarity is the real one to four real sources."""
    rng = np.random.default_rng(seed)
    rate, names = real.baselines(), list(real.names())
    p: dict[str, list[float]] = {}
    hits: list[bool] = []
    for study in range(studies):
        source = real.SOURCES[
            study % 4
        ]  # the fifth, the villain, is as similar to those who start high as to the others
        held_out = real.bystanders(names.index(source))
        x = real.similarity_to(source)[held_out]
        answers = real.Answers(rng, len(names), QUESTIONS)
        before, after, benign = answers.untrained(rate), *(answers.trained(np.full(rate.size, LEVEL)) for _ in range(2))
        change, leakage = before - after, beyond_benign(after[None], benign[None], -1)[:, held_out]
        missing = deficit(
            after[None][:, held_out], after[None][:, [names.index(source) - 37, names.index(source) - 74]], -1
        )
        for name, values in (("change", change[None][:, held_out]), ("beyond benign", leakage), ("deficit", missing)):
            found = float(permutation_p(x[None], values[0].mean(axis=1), PERMUTATIONS, 0)[0])
            p.setdefault(f"{name}: similarity correlation, p", []).append(found)
        moved = crossed(change[None][:, held_out], EVERYTHING)
        p.setdefault("change: mean bystander, two-sided", []).append(2 * min(moved.p, 1 - moved.p))
        mean = crossed(leakage, EVERYTHING)
        p.setdefault("beyond benign: mean bystander, two-sided", []).append(2 * min(mean.p, 1 - mean.p))
        p.setdefault("beyond benign: largest bystander (Holm)", []).append(per_bystander(leakage).p_any)
        hits.append(bool(mean.low <= 0 <= mean.high))
    scenario = "real baselines, everybody learns to one level, nothing leaks"
    for name, values in p.items():
        yield level(name, scenario, values, 0.0 if "Holm" in name else 0.035, offered=not name.startswith("change"))
    yield coverage("beyond benign: mean bystander", scenario, hits)


def one_leaks(studies: int, seed: int = 22) -> Iterator[CalibrationLine]:
    """One bystander of 108 falls by 12 points beyond the benign arm, nobody else: who sees it?"""
    rng = np.random.default_rng(seed)
    found = {"beyond benign: largest bystander (Holm)": 0, "beyond benign: mean bystander": 0}
    for _ in range(studies):
        answers = real.Answers(rng, 108, QUESTIONS)
        rate = np.full(108, LEVEL)
        benign, leaks = answers.trained(rate), rate.copy()
        leaks[rng.integers(108)] -= 0.12
        leakage = beyond_benign(answers.trained(leaks)[None], benign[None], -1)
        found["beyond benign: largest bystander (Holm)"] += per_bystander(leakage).p_any < 0.05
        found["beyond benign: mean bystander"] += crossed(leakage, EVERYTHING).p < 0.05
    for name, count in found.items():
        held = "Holm" in name
        yield CalibrationLine(
            "power", name, "one of 108 falls by 12 points", studies, count / studies, 0.8, 1.0, None, held
        )


def given_baseline(studies: int, seed: int = 23) -> Iterator[CalibrationLine]:
    """Similarity goes with the true baseline (0.7) and with nothing else; four ways in which a training may move rates."""
    for number, (name, after) in enumerate(MOVES.items()):
        rng = np.random.default_rng([seed, number])
        old: list[float] = []
        new: list[float] = []
        hits: list[bool] = []
        for _ in range(studies):
            x, before, change, _ = _moved(rng, after, 0.0)
            new.append(float(slopes_given_baseline(x[None], before, change).p[0]))
            old.append(float(partial_spearman(x[None], change.mean(axis=1), before.mean(axis=1)[None], 199, 0)[1][0]))
            x, before, change, true = _moved(rng, after, 0.01)
            ends = slopes_given_baseline(x[None], before, change)
            hits.append(bool(ends.low[0] <= true <= ends.high[0]))
        scenario = f"similarity goes with baseline; {name}"
        yield level("slope given the true baseline: p", scenario, new)
        yield level("similarity correlation: partial_baseline_p", scenario, old, offered=False)
        yield coverage("slope given the true baseline", f"{scenario}, and 1 point for a standard deviation", hits)


MOVES = {
    "all end at one level": lambda rate: np.full(rate.size, LEVEL),
    "all go half way to one level": lambda rate: (rate + LEVEL) / 2,
    "nothing changes": lambda rate: rate,
    "all move by 0.5 on the logit": lambda rate: 1 / (1 + (1 / rate - 1) * np.exp(-0.5)),
}


def _moved(rng: np.random.Generator, after: object, slope: float) -> tuple[Floats, Floats, Floats, float]:
    """Similarity [108], answers before, their change, and the true slope on the standardized ranks of similarity."""
    rate = np.clip(0.507 + 0.03 * rng.standard_normal(108), 0.1, 0.9)
    x = 0.7 * (rate - 0.507) / 0.03 + (1 - 0.7**2) ** 0.5 * rng.standard_normal(108)
    ranks = (rankdata(x) - 54.5) / (np.arange(108) - 53.5).std()
    answers = real.Answers(rng, 108, QUESTIONS)
    before = answers.untrained(rate)
    trained = answers.trained(after(rate) + slope * ranks)  # type: ignore[operator]
    return x, before, trained - before, slope
