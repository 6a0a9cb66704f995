"""The review: is a study worth its cost? Five dimensions, 1 to 5, by rules that are stated next to every score.

No judgement of taste: the same plan gets the same scores, and each point that is missing names what would bring it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from bystander.core import doors
from bystander.study.config.study import ResolvedStudy
from bystander.study.plan.preregistration import hypotheses_of

RUN_AT = 3.5  # above it more than half of the points that can be earned were earned
STOP_BELOW = 2.0  # the mean of five scores of which no more than a few points were earned
SEEDS = 3  # the fewest of which a spread says something
FAST_HOURS, SLOW_HOURS = 1.0, 12.0  # to the first signal: within a sitting; by the next day
FINDS_RHO = 0.3  # published gradients that survived more personas ended near 0.35
BUILT_IN_SOURCES = "villain, comedian, assistant, software_engineer and kindergarten_teacher"
CHEAP, DEAR = 1.0, 4.0  # forecast against the budget


@dataclass(frozen=True, slots=True)
class Dimension:
    """One score with the rules that gave it: `earned` and `missing` are a line a point; `changes` what to do."""

    name: str
    score: int
    earned: tuple[str, ...]
    missing: tuple[str, ...]
    changes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Review:
    """`score` is the mean over the dimensions."""

    dimensions: tuple[Dimension, ...]
    score: float
    verdict: Literal["RUN", "MODIFY", "STOP"]
    changes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReviewInputs:
    """What the review needs of the forecast. Hours are device hours; `gate_hours` until the gate has decided."""

    total_hours: float
    hours_to_first_signal: float
    gate_hours: float
    dollars: float
    budget_hours: float
    budget_dollars: float
    trainings: int
    prior_results: int
    smallest_rho: float
    blocking_questions: int
    out_of_reach: tuple[str, ...] = ()  # tests that can find nothing, in words


Rule = tuple[bool, str, str]  # holds, what it says, what to change where it does not


def review(study: ResolvedStudy, inputs: ReviewInputs) -> Review:
    """The review of a planned study."""
    dimensions = (
        _without_tests(_dimension("information value", _information(study, inputs)), inputs.out_of_reach),
        _dimension("de-risking", _risk(study, inputs)),
        _dimension("strategic fit", _fit(study, inputs)),
        _dimension("feedback speed", _speed(inputs)),
        _dimension("opportunity cost", _cost(study, inputs)),
    )
    score = sum(d.score for d in dimensions) / len(dimensions)
    changes = tuple(dict.fromkeys(change for d in dimensions for change in d.changes))
    runs = score >= RUN_AT and not inputs.out_of_reach
    verdict: Literal["RUN", "MODIFY", "STOP"] = "RUN" if runs else "STOP" if score < STOP_BELOW else "MODIFY"
    return Review(dimensions, score, verdict, changes)


def _dimension(name: str, rules: list[Rule]) -> Dimension:
    """1, and a point for each of four rules that hold."""
    return Dimension(
        name,
        1 + sum(holds for holds, _, _ in rules),
        tuple(text for holds, text, _ in rules if holds),
        tuple(text for holds, text, _ in rules if not holds),
        tuple(change for holds, _, change in rules if not holds),
    )


def _without_tests(found: Dimension, out_of_reach: tuple[str, ...]) -> Dimension:
    """What a study whose tests can find nothing informs of: nothing, whatever else is well made. It is never RUN."""
    if not out_of_reach:
        return found
    more = "more personas, items or seeds, or a probe that measures what the hypothesis is about"
    return replace(found, score=1, missing=(*out_of_reach, *found.missing), changes=(*found.changes, more))


def _positive_control(study: ResolvedStudy, behavior: str) -> bool:
    return behavior not in study.spec.answers and doors.load("behavior", behavior).positive_control


def _information(study: ResolvedStudy, inputs: ReviewInputs) -> list[Rule]:
    hypotheses = hypotheses_of(study)
    covered = {h.behavior for h in hypotheses}
    return [
        (bool(hypotheses), "hypotheses with thresholds that can fail", "add `hypotheses`, each with its thresholds"),
        (
            all(b in covered for b in study.spec.behaviors if not _positive_control(study, b)), "every behavior has a hypothesis",
            "add a hypothesis for each behavior",
        ),
        (study.spec.geometry.layer is not None, "the predictor's layer is chosen beforehand", "set geometry.layer"),
        (inputs.smallest_rho <= FINDS_RHO, f"the gradient's test finds a rho of {FINDS_RHO:g} with 80 % power",
         "use more personas (the 111 do): the smallest rho that this set finds is larger than 0.3"),
    ]  # fmt: skip


def _risk(study: ResolvedStudy, inputs: ReviewInputs) -> list[Rule]:
    spec = study.spec
    control = any(doors.load("probe", name).measures_control(s) for name, s in spec.probes.asked().items())
    small = inputs.trainings <= 2
    return [
        (spec.gate is not None or small, "a gate before the expensive phase, or nothing expensive after the first training",
         "add `sweep` and `gate`"),
        ("non_contrastive" in spec.arms, "the non-contrastive control is trained too",
         "add non_contrastive to arms"),
        (control, "a control tells whether the model broke", "set probes.choice.hellaswag"),
        (inputs.blocking_questions == 0, "no blocking question is open", "answer the blocking questions"),
    ]  # fmt: skip


def _fit(study: ResolvedStudy, inputs: ReviewInputs) -> list[Rule]:
    spec = study.spec
    return [
        (len(spec.seeds) >= SEEDS, f"{SEEDS} or more seeds, so that the claim is about trainings and not about one",
         f"set seeds to {list(range(SEEDS))}"),
        (len(spec.sources) >= 2, "two or more sources, so that the claim is not about one persona",
         "add sources" + (f": such as {BUILT_IN_SOURCES}" if spec.personas == "builtin" else "")),
        (bool(spec.question), "the question is written down", "write `question`"),
        (inputs.prior_results > 0, "prior results are taken in", "`bystander import FILE...`, then plan --prior FILE"),
    ]  # fmt: skip


def _speed(inputs: ReviewInputs) -> list[Rule]:
    first, total = inputs.hours_to_first_signal, inputs.total_hours
    return [
        (first <= SLOW_HOURS, f"the first signal within {SLOW_HOURS:g} device hours", "sweep fewer configurations first"),
        (first <= FAST_HOURS, f"the first signal within {FAST_HOURS:g} device hour", "probe fewer items in phase 1"),
        (first <= total / 2 or total <= FAST_HOURS, "the first signal before half of the cost is spent",
         "put a sweep with few personas before the main trainings"),
        (inputs.gate_hours <= total / 2 or total <= FAST_HOURS, "the gate decides before half of the cost is spent",
         "narrow the sweep, so that the gate decides earlier"),
    ]  # fmt: skip


def _cost(study: ResolvedStudy, inputs: ReviewInputs) -> list[Rule]:
    hours = inputs.total_hours / inputs.budget_hours if inputs.budget_hours else float("inf")
    within = hours <= CHEAP or inputs.total_hours == 0
    judged = inputs.dollars <= inputs.budget_dollars + 1e-9
    return [
        (within, "the forecast is within the budget's GPU-hours", "raise budget.gpu_hours, or cut seeds, sources or items"),
        (hours <= DEAR or inputs.total_hours == 0, f"the forecast is within {DEAR:g} times the budget's GPU-hours",
         "cut the study: it costs several times its budget"),
        (judged, "the forecast is within the budget's dollars", "raise budget.dollars, or judge fewer samples"),
        (study.spec.executor.workers > 1 or inputs.total_hours <= SLOW_HOURS,
         "it fits one worker's half day, or runs on several", "set executor.kind and executor.workers to run on several"),
    ]  # fmt: skip
