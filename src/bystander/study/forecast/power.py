"""What a study of this size can find, told before it runs: every test's smallest effect, and what the gate decides."""

from __future__ import annotations

import math
from collections.abc import Iterator
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


# A gradient above it has never been published of this many personas, and a test that finds no smaller one finds none.
MOST_RHO = 0.9
MOST = {"fraction": 1.0, "score": 100.0}  # by how much a metric of that unit can change; others know no bound


@dataclass(frozen=True, slots=True)
class TestPower:
    """One test: with `n` of `unit` it finds `smallest` with 80 % power; its 95 % interval is `width` wide. `threshold`
    is what the hypothesis asks for; `assumed` what was taken for granted. `smallest` is NaN where no effect that there
    can be is found: `out_of_reach` says so in words, "" elsewhere; `weak` says in words that the threshold itself is
    below what is found."""

    test: str
    hypothesis: str
    n: int
    unit: str
    smallest: float
    width: float
    threshold: float
    assumed: str
    out_of_reach: str = ""
    weak: str = ""


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
    return [test for one in hypotheses for test in _tests(one, held_out, items, seeds)]


def _tests(one: Hypothesis, held_out: int, items: dict[tuple[str, str], int], seeds: int) -> Iterator[TestPower]:
    unit = "held-out bystanders"
    least, width = smallest_rho(held_out, alpha=one.alpha), width_of_rho(held_out, one.rho)
    yield _test("gradient (rho)", one.name, held_out, unit, least, width, one.rho, "leakage without error", MOST_RHO)
    threshold = next((t for t in one.thresholds if t.outcome[:2] in items), None)
    if threshold is None:
        wanted = " or ".join("/".join(t.outcome) for t in one.thresholds)
        nothing = f"{one.name}: no probe of this study measures {wanted}, so its verdict can only be `inconclusive`"
        yield TestPower("source change", one.name, 0, "items", math.nan, math.nan, math.nan, "", nothing)
        return
    outcome = "/".join(threshold.outcome)
    n = items[threshold.outcome[:2]] * seeds
    declared = metric(threshold.outcome[0], threshold.outcome[2])
    (item_sd, persona_sd), most = declared.spread or SPREAD, MOST.get(declared.unit, math.inf)
    error = item_sd / math.sqrt(n) if n else math.nan
    assumed = f"an item's change varies by {item_sd:g}"
    least = smallest_change(error, n - 1, one.alpha, POWER)
    yield _test(
        f"source change ({outcome})", one.name, n, "items", least, width_of_mean(error, n - 1), threshold.source, assumed,
        most,
    )  # fmt: skip
    over = math.sqrt((persona_sd**2 + error**2) / held_out) if held_out and n else math.nan
    least = smallest_change(over, held_out - 1, one.alpha, POWER)
    yield _test(
        f"mean bystander change ({outcome})", one.name, held_out, unit, least, width_of_mean(over, held_out - 1),
        threshold.bystanders, f"{assumed}, a persona's by {persona_sd:g}", most,
    )  # fmt: skip


def _test(
    test: str, name: str, n: int, unit: str, smallest: float, width: float, threshold: float, assumed: str, most: float
) -> TestPower:
    """A test with what is to be said of it; `most` is the largest effect that there can be."""
    which = f"{name}, {test}: {n} {unit}"
    out_of_reach = weak = ""
    if not smallest <= most:
        smallest, out_of_reach = math.nan, f"{which} are too few for it to find any effect that there can be"
    elif smallest > threshold:
        weak = (
            f"{which} find {smallest:.2g}, and it asks for {threshold:g}: an effect of that size would mostly be missed"
        )
    return TestPower(test, name, n, unit, smallest, width, threshold, assumed, out_of_reach, weak)


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
    if any(math.isnan(p) for p in odds.passes.values()):
        return f"on {odds.personas} bystanders there is no rho, so that the gate decides nothing; sweep more personas"
    by_rho = ", ".join(f"{p:.0%} at a true rho of {rho:g}" for rho, p in odds.passes.items())
    toss = odds.passes.get(odds.threshold, math.nan)
    coin = " — a coin toss at its own threshold" if 0.4 <= toss <= 0.6 else ""
    return f"on {odds.personas} bystanders a behavior passes the gate with {by_rho}{coin}"
