"""What a study of this size can find, told before it runs: every test's smallest effect, and what the gate decides."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bystander.analysis.hypotheses import Hypothesis
from bystander.analysis.stats.power import gate_passes, smallest_change, smallest_rho, width_of_mean, width_of_rho
from bystander.core.metrics import metric
from bystander.study.config.study import StudySettings

POWER = 0.8
TRUE_RHOS = (
    0.0,
    0.2,
    0.3,
    0.5,
)  # nothing; the gate's own threshold; what faded claims ended at; what strong ones began at

# Assumed before anything is measured of a metric that does not say it, as `core.metrics.Metric.spread`: binary items, of
# which 30 % change their answer, so sqrt(0.3).
SPREAD = (0.55, 0.05)


@dataclass(frozen=True, slots=True)
class TestPower:
    """One test: with `n` of `unit` it finds `smallest` with 80 % power; its 95 % interval is `width` wide. `threshold`
    is what the hypothesis asks for; `assumed` what was taken for granted. NaN where n is too small for any."""

    test: str
    hypothesis: str
    n: int
    unit: str
    smallest: float
    width: float
    threshold: float
    assumed: str


@dataclass(frozen=True, slots=True)
class GateOdds:
    """The chance that one behavior's measured rho reaches the threshold, by the true rho; and that the whole gate lets
    the study go on. `personas` are the bystanders that it is decided on."""

    personas: int
    threshold: float
    passes: dict[float, float]
    goes_on: dict[float, float]


def power_of_tests(
    hypotheses: tuple[Hypothesis, ...], held_out: int, items: dict[tuple[str, str], int], seeds: int
) -> list[TestPower]:
    """The three tests of every hypothesis. `items`: (probe, dataset) -> items a persona is measured on."""
    found: list[TestPower] = []
    for one in hypotheses:
        threshold = next((t for t in one.thresholds if t.outcome[:2] in items), None)
        found.append(
            TestPower(
                "gradient (rho)",
                one.name,
                held_out,
                "held-out bystanders",
                smallest_rho(held_out, alpha=one.alpha),
                width_of_rho(held_out, one.rho),
                one.rho,
                "leakage without error",
            )
        )
        if threshold is None:
            continue
        n = items[threshold.outcome[:2]] * seeds
        item_sd, persona_sd = metric(threshold.outcome[0], threshold.outcome[2]).spread or SPREAD
        error = item_sd / math.sqrt(n) if n else math.nan
        assumed = f"an item's change varies by {item_sd:g}"
        found.append(
            TestPower(
                f"source change ({'/'.join(threshold.outcome)})",
                one.name,
                n,
                "items",
                smallest_change(error, n - 1, one.alpha, POWER),
                width_of_mean(error, n - 1),
                threshold.source,
                assumed,
            )
        )
        over = math.sqrt((persona_sd**2 + error**2) / held_out) if held_out and n else math.nan
        found.append(
            TestPower(
                f"mean bystander change ({'/'.join(threshold.outcome)})",
                one.name,
                held_out,
                "held-out bystanders",
                smallest_change(over, held_out - 1, one.alpha, POWER),
                width_of_mean(over, held_out - 1),
                threshold.bystanders,
                f"{assumed}, a persona's by {persona_sd:g}",
            )
        )
    return found


def gate_odds(spec: StudySettings, bystanders: int) -> GateOdds | None:
    """What the gate decides at each true rho, on that many bystanders; None without a gate."""
    if spec.gate is None or spec.sweep is None:
        return None
    threshold = spec.gate.threshold
    behaviors = len(spec.sweep.behaviors or spec.behaviors)
    passes = {rho: gate_passes(bystanders, threshold, rho) for rho in TRUE_RHOS}
    every = spec.gate.stop_if == "any_below"
    goes_on = {rho: p**behaviors if every else 1 - (1 - p) ** behaviors for rho, p in passes.items()}
    return GateOdds(bystanders, threshold, passes, goes_on)


def describe_odds(odds: GateOdds) -> str:
    """The odds in a sentence."""
    by_rho = ", ".join(f"{p:.0%} at a true rho of {rho:g}" for rho, p in odds.passes.items())
    toss = odds.passes.get(odds.threshold, math.nan)
    coin = " — a coin toss at its own threshold" if 0.4 <= toss <= 0.6 else ""
    return f"on {odds.personas} bystanders a behavior passes the gate with {by_rho}{coin}"
