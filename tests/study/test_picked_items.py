"""A configuration that a sweep picked for its effect is tested on questions that had no say in it."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bystander.core.hashing import generator
from bystander.engine.gate import measured_outcome, reading
from bystander.study.config.study import ResolvedStudy, load
from bystander.study.plan.picked_items import (
    LEFT,
    PICKED_ON,
    gate_outcomes,
    half_of,
    left_to_test,
    questions_in,
    split_notes,
    splits_items,
)
from bystander.study.store.records import GateDecision

ARC = ("choice", "arc", "accuracy")
SWEEP = """
name: swept
sources: [villain]
behaviors: [capability]
capability: {data: bank, answer: text}
sweep: {source: villain, configs: [{lr: 1e-3, epochs: 1}, {lr: 1e-3, epochs: 2}]}
gate: {threshold: 0.2}
probes: {choice: {mode: text, trained: 4, arc: 8, hellaswag: 0}}
geometry: {layer: 2}
"""


def study(folder: Path, *more: str) -> ResolvedStudy:
    (folder / "swept.yaml").write_text(SWEEP)
    return load(str(folder / "swept.yaml"), more)


def table(questions: int, samples: int = 2) -> pl.DataFrame:
    rows = [
        {
            "behavior": behavior, "source": source, "probe": probe, "dataset": dataset, "metric": metric,
            "item": f"q{q}/{s}", "question": f"q{q}", "value": 0.0,
        }
        for behavior, source in (("", None), ("capability", "villain"), ("other", "villain"))
        for probe, dataset, metric in (
            ARC, ("choice", "arc", "margin"), ("choice", "trained", "adoption"), ("choice", "hellaswag", "accuracy"),
        )
        for q in range(questions)
        for s in range(samples)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema_overrides={"source": pl.String})


def test_the_halves_are_apart_whole_and_by_question():
    frame = table(21)
    halves = {half: half_of(frame, ARC, half) for half in ("picking", "testing")}
    arc = {half: set(part.filter(pl.col("dataset") == "arc")["question"]) for half, part in halves.items()}
    assert not arc["picking"] & arc["testing"]
    assert arc["picking"] | arc["testing"] == {f"q{q}" for q in range(21)}
    assert {len(found) for found in arc.values()} == {10, 11}
    for part in halves.values():
        assert part.filter(pl.col("dataset") == "hellaswag").height == 21 * 2 * 3  # no other set is split
        by_question = part.filter(pl.col("dataset") == "arc").group_by("question").len()["len"]
        assert set(by_question) == {2 * 2 * 3}  # all samples, metrics and states of a question
    assert half_of(frame.sample(fraction=1.0, shuffle=True, seed=1), ARC, "testing").height == halves["testing"].height


def test_items_without_a_question_are_their_own():
    frame = table(8, samples=1).with_columns(pl.lit("").alias("question"), pl.col("question").alias("item"))
    assert len(questions_in(frame, ARC)) == 8
    assert len(questions_in(half_of(frame, ARC, "picking"), ARC)) == 4


def test_gate_and_hypothesis_read_the_same_outcome(tmp_path: Path):
    plain = study(tmp_path)
    assert gate_outcomes(plain, "capability")[0][2] == "accuracy"  # not the adoption of the trained answers
    frame = table(6).with_columns(pl.col("dataset").replace("arc", gate_outcomes(plain, "capability")[0][1]))
    assert measured_outcome(plain, "capability", frame) == gate_outcomes(plain, "capability")[0]
    other = study(tmp_path, "gate.outcome=choice/trained/adoption")
    assert measured_outcome(other, "capability", frame) == ("choice", "trained", "adoption")
    assert measured_outcome(study(tmp_path, "gate.outcome=choice/nowhere/margin"), "capability", frame) is None


def test_the_gate_reads_its_own_behavior_and_half_of_the_questions(tmp_path: Path):
    spec = study(tmp_path).spec
    rows, questions = reading(table(9), "capability", ARC, spec)
    assert set(rows["behavior"]) == {"", "capability"}
    assert set(rows["metric"]) == {"accuracy"}
    assert set(rows["dataset"]) == {"arc", "hellaswag"}
    assert (len(questions["picking"]), len(questions["left"])) == (4, 5)
    numbers = {"capability outcome": "choice/arc/accuracy", f"capability {PICKED_ON}": 4, f"capability {LEFT}": 5}
    gate = GateDecision(
        "go", "", {"capability": "lr=0.001,epochs=2"}, numbers, [], {"capability": questions["picking"]}
    )
    # The table of the whole study has questions that the sweep never asked: they had no say and are tested on.
    tested = left_to_test(table(12), gate).filter(pl.col("dataset") == "arc")
    seen = set(rows.filter(pl.col("dataset") == "arc")["question"])
    assert seen == set(questions["picking"])
    assert set(tested["question"]) == {f"q{q}" for q in range(12)} - seen
    (said,) = split_notes(numbers, gate.picks)
    assert "picked for its effect on 4 questions" in said
    assert "the other 5" in said


@pytest.mark.parametrize(
    ("more", "splits"),
    [
        ((), True),
        (("select.items=all",), False),
        (("sweep.configs=[{lr: 1e-3, epochs: 1}]",), False),
        (("select={rule: given, config: {lr: 1e-3, epochs: 1}}",), False),
    ],
)
def test_only_a_pick_by_effect_splits(tmp_path: Path, more, splits):
    spec = study(tmp_path, *more).spec
    assert splits_items(spec) is splits
    rows, questions = reading(table(9), "capability", ARC, spec)
    assert bool(questions) is splits
    assert len(questions_in(rows, ARC)) == (4 if splits else 9)


def test_the_largest_of_five_without_any_effect_is_not_significant_on_the_other_half():
    """The old way picks and tests on the same questions, and finds an effect where there is none."""
    names = [f"q{q}" for q in range(60)]
    frame = pl.DataFrame({"probe": "choice", "dataset": "arc", "question": names, "item": names})
    picking = np.isin(names, half_of(frame, ARC, "picking")["question"].to_list())
    same, other = [], []
    for world in range(1500):
        effects = generator("no effect", world).choice([-1.0, 0.0, 1.0], (5, 60), p=(0.15, 0.7, 0.15))
        best_of_all = effects[effects.mean(axis=1).argmax()]
        best = effects[effects[:, picking].mean(axis=1).argmax()][~picking]
        same.append(best_of_all.mean() / (best_of_all.std(ddof=1) / 60**0.5) > 1.671)  # t, 59 df, one-sided 5 %
        other.append(best.mean() / (best.std(ddof=1) / 30**0.5) > 1.699)  # t, 29 df
    assert np.mean(same) > 0.15
    assert 0.03 < np.mean(other) < 0.07
