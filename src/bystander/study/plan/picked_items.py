"""Which questions a sweep picks its configuration on, and which are left to test it on.

The largest of several noisy effects overstates itself on the questions that made it the largest. The halves are drawn by
the questions' names; the gate keeps those that it picked on, since a later table may hold questions that it never saw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import polars as pl

from bystander.analysis.stats.selection import picking_items
from bystander.core.metrics import Outcome, outcomes_of
from bystander.study.config.study import ResolvedStudy, StudySettings
from bystander.study.plan.parts import renamed
from bystander.study.plan.preregistration import hypotheses_of
from bystander.study.store.records import GateDecision

Half = Literal["picking", "testing"]
PICKED_ON, LEFT = "questions picked on", "questions to test on"  # in the gate's numbers, where they were split

# The question of a row; an item that is no sample of one is its own.
QUESTION = pl.when(pl.col("question") != "").then(pl.col("question")).otherwise(pl.col("item"))


def splits_items(spec: StudySettings) -> bool:
    """Whether a configuration is picked for its effect, so that it must not be tested on the same questions."""
    chooses = spec.sweep is not None and spec.select.rule == "largest_source_effect" and len(spec.sweep.points()) > 1
    return chooses and spec.select.items == "split"


def gate_outcomes(study: ResolvedStudy, behavior: str) -> list[Outcome]:
    """What selection and gate read of a behavior, the first that was measured: what `gate.outcome` says; else what its
    hypothesis is judged by; else its headline outcomes."""
    gate = study.spec.gate
    if gate is not None and gate.outcome is not None:
        probe, dataset, metric = gate.outcome.split("/")
        return [(probe, dataset, metric)]
    claimed = [
        (str(probe), str(dataset), str(metric))
        for hypothesis in hypotheses_of(study)
        if hypothesis.behavior == behavior
        for probe, dataset, metric in (threshold.outcome for threshold in hypothesis.thresholds)
    ]
    return claimed or [renamed(study, outcome) for outcome in outcomes_of(behavior)]


def half_of(frame: pl.DataFrame, outcome: Sequence[str], half: Half) -> pl.DataFrame:
    """The measurements without the other half of the questions of the outcome's set; all other sets are whole."""
    of_set = (pl.col("probe") == outcome[0]) & (pl.col("dataset") == outcome[1])
    names = questions_in(frame, outcome)
    picking = [name for name, chosen in zip(names, picking_items(names, outcome[1]), strict=True) if chosen]
    inside = QUESTION.is_in(picking)
    return frame.filter(~of_set | (inside if half == "picking" else ~inside))


def left_to_test(frame: pl.DataFrame, gate: GateDecision) -> pl.DataFrame:
    """The measurements without the questions that had a say in a pick."""
    for behavior, questions in gate.picked_on.items():
        probe, dataset, _ = str(gate.numbers[f"{behavior} outcome"]).split("/")
        of_set = (pl.col("probe") == probe) & (pl.col("dataset") == dataset)
        frame = frame.filter(~(of_set & QUESTION.is_in(list(questions))))
    return frame


def split_notes(numbers: Mapping[str, object], picks: Mapping[str, str]) -> list[str]:
    """What a reader must know of it, a sentence a behavior; `numbers` and `picks` are the gate's."""
    return [
        f"{behavior}: {config} was picked for its effect on {numbers[f'{behavior} {PICKED_ON}']} questions of "
        f"{numbers[f'{behavior} outcome']}; the tests are on the other {numbers[f'{behavior} {LEFT}']}"
        for behavior, config in picks.items()
        if f"{behavior} {PICKED_ON}" in numbers
    ]


def questions_in(frame: pl.DataFrame, outcome: Sequence[str]) -> list[str]:
    """The different questions of the outcome's set, in order of name."""
    of_set = frame.filter(pl.col("probe") == outcome[0], pl.col("dataset") == outcome[1])
    return sorted(of_set.select(QUESTION.alias("question")).to_series().unique().to_list())
