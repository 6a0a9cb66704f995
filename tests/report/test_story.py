"""The terminal's few lines: at most eight, every number of them in the records, and the next step follows a flag."""

from __future__ import annotations

import re
from dataclasses import replace

import polars as pl
import pytest

from bystander.analysis import Analysis, AnalysisSettings, analyze
from bystander.analysis.hypotheses import A
from bystander.core.records import Finding, Verdict
from bystander.report import GateResult, ReportInput, TrainingRows
from bystander.report.labels import format_number
from bystander.report.next_steps import next_steps
from bystander.report.story import LINES, WIDTH, story
from tests.support.analysis_study import World, measurements, personas, similarities
from tests.support.report_synthetic import Size, synthetic

QUICK = AnalysisSettings(layer=20, permutations=199, partial_permutations=99, resamples=200)
ROWS = TrainingRows("capability", "villain", "contrastive", "", 160, 2, ("joker", "pirate"), (0,))
ASKED = ReportInput(study="try", question="Who answers wrongly too?", model="smollm2-135m", trained=(ROWS,))


@pytest.fixture(scope="module")
def found() -> Analysis:
    world = World(personas=24, layers=(20,))
    return analyze(measurements(world), similarities(world), personas(world), settings=QUICK, hypotheses=[A])


def heads(lines: list[str]) -> list[str]:
    return [line.split(" ")[0] for line in lines]


def test_one_behavior_is_told_from_the_question_to_the_next_step(found: Analysis):
    lines = story(found, ASKED, "runs/try/report.html", "runs/try")
    assert heads(lines) == ["Asked", "Trained", "Source", "Bystanders", "Reached", "Similarity", "Verdict", "Report"]
    asked, trained, source, bystanders, reached, similarity, verdict, report = lines
    assert asked.endswith(ASKED.question)
    assert (
        "villain to show capability, 160 rows, 2 epochs, 2 negatives, 1 seed, contrastive arm; model smollm2-135m"
        in trained
    )
    (row,) = found.leakage_ratio.filter(pl.col("seed").is_null()).to_dicts()
    own = found.leakage.filter(role="source", context="persona").filter(pl.col("seed").is_null()).to_dicts()[0]
    assert f"accuracy {own['before']:.3f} untrained, {own['after']:.3f} trained" in source
    assert (
        f"{row['source_leakage']:.3f} [{row['source_low']:.3f}, {row['source_high']:.3f}] (asked: >= 0.05), p" in source
    )
    assert f"{row['bystander_leakage']:.3f} [" in bystanders
    assert f"over {row['n']} held-out (asked: > 0.01), p" in bystanders
    (who,) = found.captured.to_dicts()
    assert f"{who['captured']} of {who['n']} captured" in reached
    assert who["names"].split(", ")[0].replace("_", " ") in reached
    rho = found.similarity_correlation.filter(pl.col("seed").is_null()).to_dicts()[0]
    assert f"rho {format_number(rho['rho'], 'rho')} [" in similarity
    assert "(asked: > 0.2), p" in similarity
    assert found.verdicts[0].outcome in verdict
    assert report.split("  ")[-1].startswith("runs/try/report.html; next: ")


@pytest.mark.parametrize("behaviors", [("marker",), ("marker", "capability"), ("marker", "capability", "misalignment")])
def test_there_are_at_most_eight_lines_and_none_is_wider_than_a_wide_terminal(behaviors: tuple[str, ...]):
    analysis, inputs = synthetic(Size(behaviors=behaviors, personas=30))
    lines = story(analysis, inputs, "runs/x/report.html", "runs/x")
    assert len(lines) == LINES if len(behaviors) in (1, 3) else len(lines) < LINES
    assert all(len(line) <= WIDTH for line in lines[:-1])
    for behavior in behaviors:
        assert any(behavior in line.lower() for line in lines)


def test_a_long_reason_leaves_out_the_estimates_that_stand_above_it(found: Analysis):
    long = (
        "rho is 0.538 [0.386, 0.661], p = 1e-05, threshold 0.3: whether it is the similarity to this source was not tested; "
        "held-out bystanders changed on average by -0.012 [-0.1, 0.07], p = 0.3, threshold 0.01: neither shown nor excluded"
    )
    verdict = replace(found.verdicts[0], outcome="inconclusive", reason=long)
    line = next(s for s in story(replace(found, verdicts=(verdict,)), ASKED, "", "r") if s.startswith("Verdict"))
    assert line.split(maxsplit=1)[1].startswith(
        "inconclusive: rho: whether it is the similarity to this source was not tested"
    )


def test_what_is_left_of_a_reason_says_nothing_that_the_estimate_did_not(found: Analysis):
    long = "the source leaked 0.000 [-0.245, 0.245], threshold 0.05: the interval holds the threshold, or p = 0.5 is not below 0.05"
    verdict = replace(found.verdicts[0], outcome="inconclusive", reason=long)
    line = next(s for s in story(replace(found, verdicts=(verdict,)), ASKED, "", "r") if s.startswith("Verdict"))
    assert line.split(maxsplit=1)[1].startswith("inconclusive: the source: the interval holds the threshold")


def test_where_nobody_was_captured_it_says_so_and_who_came_closest(found: Analysis):
    none = found.captured.with_columns(captured=pl.lit(0), names=pl.lit(""), bare=pl.lit(""))
    line = next(s for s in story(replace(found, captured=none), ASKED, "", "r") if s.startswith("Reached"))
    assert "nobody by more than half of the source's; most in " in line


def test_captures_between_nobody_and_everybody_are_not_named(found: Analysis):
    open_ended = found.captured.with_columns(
        captured=pl.lit(7), names=pl.lit("persona_003"), low=pl.lit(0), high=pl.col("n")
    )
    line = next(s for s in story(replace(found, captured=open_ended), ASKED, "", "r") if s.startswith("Reached"))
    assert "cannot be told: the interval holds nobody and everybody; most in " in line
    narrow = open_ended.with_columns(high=pl.col("n") - 1)
    line = next(s for s in story(replace(found, captured=narrow), ASKED, "", "r") if s.startswith("Reached"))
    assert "7 of " in line
    assert "persona" in line


def test_many_behaviors_are_a_line_each_and_the_rest_are_counted(found: Analysis):
    names = [f"own_{i}" for i in range(9)]
    wide = {
        table: pl.concat([frame.with_columns(pl.lit(name).alias("behavior")) for name in names])
        for table, frame in found.tables().items()
        if "behavior" in frame.columns
    }
    lines = story(replace(found, **wide, verdicts=()), ASKED, "", "runs/x")
    assert len(lines) == LINES
    assert heads(lines)[1:6] == ["Own"] * 5
    assert "4 behaviors more" in lines[6]
    assert lines[7].startswith("Next ")


def test_hostile_text_stays_on_its_line(found: Analysis):
    bad = "a\nb\x1b[31m" + "c" * 300
    lines = story(found, replace(ASKED, question=bad, model=bad), "", "runs/x")
    assert not any("\n" in line or "\x1b" in line for line in lines)
    assert len(lines[0]) <= WIDTH


def test_without_a_hypothesis_it_says_so(found: Analysis):
    lines = story(replace(found, verdicts=()), ASKED, "", "runs/x")
    assert any(line.startswith("Verdict") and "exploratory" in line for line in lines)
    assert not any("asked:" in line for line in lines)
    assert any("`hypotheses:`" in step for step in next_steps(replace(found, verdicts=()), ASKED))


def verdict_of(found: Analysis, **numbers: object) -> Analysis:
    (verdict,) = found.verdicts
    return replace(found, verdicts=(replace(verdict, numbers={**verdict.numbers, **numbers}),))


def _still(found: Analysis) -> Analysis:
    name = next(n for n in found.verdicts[0].numbers if n.startswith("source") and n.endswith("_p"))
    return verdict_of(found, **{name: 0.4})


CHANGES = {
    "the model broke": (lambda a: verdict_of(a, control_state="broke"), "broke the model"),
    "the positive control stood still": (lambda a: verdict_of(a, positive_control="did not move"), "may be blind"),
    "no layer was declared": (lambda a: verdict_of(a, layer_declared="no"), "a layer fixed beforehand"),
    "a model at chance": (
        lambda a: replace(
            a, verdicts=(replace(a.verdicts[0], reason="the untrained model is at chance on choice/arc/accuracy"),)
        ),
        "a form of the questions that it can answer",
    ),
    "too few personas": (lambda a: verdict_of(a, rho_p=0.5, smallest_detectable_rho=0.6), "would mostly be missed"),
    "the source stood still": (_still, "did not clearly take it up"),
    "no benign arm": (lambda a: verdict_of(a, measured_against="the untrained model"), "`benign` arm"),
    "nothing was measured": (
        lambda a: replace(a, verdicts=(Verdict("A", "inconclusive", "not measured: choice/arc/accuracy"),)),
        "measure it",
    ),
    "failed items": (
        lambda a: replace(
            a, checks=a.checks.with_columns(pl.lit("failed").alias("status"), pl.lit(False).alias("control"))
        ),
        "too many items failed",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_flag_says_what_would_change_the_conclusion_and_only_where_it_is_set(name: str, found: Analysis):
    change, words = CHANGES[name]
    sound = verdict_of(found, measured_against="the benign arm")
    assert not any(words in step for step in next_steps(sound, ASKED))
    assert any(words in step for step in next_steps(change(sound), ASKED))


@pytest.mark.parametrize(("decision", "words"), [("stop", "the gate stopped"), ("overridden", "was overridden")])
def test_the_gate_comes_first(decision: str, words: str, found: Analysis):
    first, *_ = next_steps(found, replace(ASKED, gate=GateResult(decision, "the source stood still")))
    assert words in first


def test_a_sound_study_is_shared(found: Analysis):
    several = {
        name: getattr(found, name).with_columns(pl.lit(3).alias("n_seeds")) for name in ("leakage_ratio", "leakage")
    }
    sound = verdict_of(replace(found, **several), measured_against="the benign arm", n_seeds=3)
    (only,) = next_steps(sound, ASKED, "runs/try")
    assert "`bystander push runs/try --to OWNER/NAME" in only
    warned = replace(ASKED, findings=(Finding("warning", "ratio", "the ratio differs"),))
    assert re.search("audit has warnings", next_steps(sound, warned)[0])
