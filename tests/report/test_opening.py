"""The sentences that a report opens with."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest
from markupsafe import Markup

from bystander.analysis import Analysis, AnalysisSettings, analyze
from bystander.analysis.hypotheses import A
from bystander.core.records import BARE
from bystander.report import ReportInput
from bystander.report.contexts import sentence
from bystander.report.figures.frames import levels
from bystander.report.headline import captures, headline_outcomes
from bystander.report.labels import first_names, format_number
from bystander.report.next_steps import next_steps
from bystander.report.numbers import QuotedNumbers
from bystander.report.opening import _bare, asked, openings
from bystander.report.page import render
from bystander.report.sentences import verdict
from tests.support.analysis_study import World, measurements, personas, similarities
from tests.support.report_page import SMALL
from tests.support.report_synthetic import synthetic


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], ""),
        ([{"source": "villain", "bare": ""}, {"source": "assistant", "bare": None}], ""),
        (
            [{"source": "villain", "bare": ""}, {"source": "kindergarten_teacher", "bare": "default, empty"}],
            " Without a persona too: the template's default, an empty system turn (by kindergarten teacher).",
        ),
    ],
)
def test_captured_contexts_without_a_persona_are_named(rows: list[dict[str, str]], said: str) -> None:
    assert Markup(_bare(rows)).striptags() == said.strip()


@pytest.mark.parametrize("untrained", [True, False])
def test_where_untrained_answers_have_no_level_the_benign_arms_stands_for_it(untrained: bool) -> None:
    analysis, inputs = synthetic(SMALL)
    analysis = replace(analysis, leakage=analysis.leakage.with_columns(
        before=pl.col("before") if untrained else pl.lit(None, pl.Float64), benign=pl.lit(0.0625)
    ))  # fmt: skip
    chosen, numbers = headline_outcomes(analysis, {}), QuotedNumbers(analysis, inputs)
    (opening, *_) = openings(analysis, inputs, numbers, chosen, [])
    assert opening.lead is not None
    said = Markup(opening.lead).striptags()
    assert "where the benign arm has 0.063" in said
    assert ("and the untrained model" in said) is untrained
    told = sentence(analysis, numbers, chosen[0])
    assert told is not None
    assert ("(benign arm) 0.063 → " in told.striptags()) is not untrained
    drawn = levels(analysis, chosen[0], ["contrastive"])
    assert set(drawn["since"]) == {"untrained" if untrained else "benign arm"}
    assert drawn["start"].null_count() == 0
    assert untrained or set(drawn["start"]) == {0.0625}


@pytest.mark.parametrize("source", ["", "villain"])
def test_answers_refused_before_training_are_no_failed_measurement(source: str) -> None:
    analysis, inputs = synthetic(SMALL)
    checks = analysis.checks.with_columns(
        pl.lit(source).alias("source"), pl.lit("refused").alias("status"), pl.lit(False).alias("control")
    )
    said = " ".join(next_steps(replace(analysis, checks=checks), inputs))
    assert ("of the untrained model" in said, "probe those again" in said) == (not source, bool(source))


@pytest.mark.parametrize(
    ("count", "uncounted", "said"),
    [
        (0, "", ""),
        (2, "", "nice 0, nice 1"),
        (12, "", "nice 11"),
        (13, "", "nice 11 and 1 more"),
        (40, "", "nice 11 and 28 more"),
        (40, " and 54 more", "nice 11 and 82 more"),
    ],
)
def test_a_cell_names_the_first_of_many_and_counts_those_that_the_analysis_only_counted(
    count: int, uncounted: str, said: str
) -> None:
    cell = first_names(", ".join(f"nice_{index}" for index in range(count)) + uncounted, 12)
    assert cell.endswith(said)
    assert cell.count("nice") == min(count, 12)


def test_a_run_says_what_it_asks_itself_whatever_the_studys_question() -> None:
    inputs = ReportInput(
        question="Do wrong answers and insecure code reach others?",
        behaviors=("capability", "own_jokes"),
        taught={"capability": "answer questions wrongly"},
        hypotheses={"A": "It follows similarity.", "own": ""},
    )
    assert asked(inputs) == (
        "capability: models trained to answer questions wrongly", "own jokes: models trained to show own jokes",
        "hypothesis A: It follows similarity.", "hypothesis own",
    )  # fmt: skip
    analysis, synthetic_inputs = synthetic(SMALL)
    text = render(analysis, replace(synthetic_inputs, behaviors=("capability",), question=inputs.question), {})
    head = Markup(text[text.index("<h1") : text.index('id="verdict"')]).striptags()
    assert "Asked in this run. Capability: models trained to show capability. Hypothesis A: " in head


def _bare_rows(analysis: Analysis, p: float, low: float) -> Analysis:
    """The contexts without a persona as held-out ones, of which the first of the villain's leaks with that p."""
    bare = pl.col("context").is_in(BARE)
    first = bare & (pl.col("context") == "default")
    return replace(analysis, leakage=analysis.leakage.with_columns(
        role=pl.when(bare).then(pl.lit("held-out")).otherwise("role"),
        leakage=pl.when(first).then(pl.lit(0.4)).when(bare).then(pl.lit(0.01)).otherwise("leakage"),
        low=pl.when(bare).then(pl.lit(low)).otherwise("low"),
        p_above_holm=pl.when(first).then(pl.lit(p)).when(bare).then(pl.lit(0.9)).otherwise("p_above_holm"),
        against=pl.lit("benign arm"),
    ))  # fmt: skip


@pytest.mark.parametrize(
    ("p", "low", "said"),
    [
        (0.001, 0.1, "is shown to leak too, in "),
        (0.2, 0.1, "is not shown to leak; the most"),
        (0.03, -0.01, "is not shown to leak; the most"),
    ],
)
def test_without_a_persona_a_sentence_names_what_leaked_or_what_came_closest(p: float, low: float, said: str) -> None:
    analysis, inputs = synthetic(SMALL)
    analysis = _bare_rows(analysis, p, low)
    (headline, *_) = headline_outcomes(analysis, {})
    told = sentence(analysis, QuotedNumbers(analysis, inputs), headline)
    assert told is not None
    text = told.striptags()
    assert said in text
    assert "with the template's default" in text
    assert text.count("→") == 1
    assert "(leakage 0.400" in text
    untrained = replace(analysis, leakage=analysis.leakage.with_columns(against=pl.lit("untrained model")))
    told = sentence(untrained, QuotedNumbers(untrained, inputs), headline)
    assert told is not None
    assert "shown to change towards the behavior" in told.striptags()


def test_captures_between_nobody_and_everybody_are_not_named() -> None:
    world = World(personas=24, layers=(20,), sources=("villain", "comedian"))
    quick = AnalysisSettings(layer=20, permutations=99, partial_permutations=99, resamples=100)
    analysis = analyze(measurements(world), similarities(world), personas(world), settings=quick, hypotheses=[])
    (headline, *_) = headline_outcomes(analysis, {})
    own = headline.rows(analysis.captured)["record"].to_list()
    assert len(own) == 2
    told = {record: at > 0 for at, record in enumerate(own)}  # of the first it cannot be told
    rows = analysis.captured.with_columns(
        captured=pl.lit(3, pl.Int64), names=pl.lit("pirate"), low=pl.lit(0, pl.Int64),
        high=pl.when(pl.col("record").replace_strict(told, default=True)).then(4).otherwise(pl.col("n")).cast(pl.Int64),
    )  # fmt: skip
    analysis = replace(analysis, captured=rows)
    found, untold = captures(headline, analysis.captured)
    assert (len(found), len(untold)) == (len(own) - 1, 1)
    inputs = ReportInput(study="two sources")
    numbers = QuotedNumbers(analysis, inputs)
    said = " ".join(Markup(one).striptags() for one in verdict(analysis, numbers, headline).sentences)
    assert said.count("pirate") == len(own) - 1
    assert "it cannot be told: the interval holds nobody and everybody" in said
    first = openings(analysis, inputs, numbers, [headline], [])[0].reached
    assert first is not None
    assert ("cannot be told" in Markup(first).striptags()) is (len(own) == 1)


def test_the_verdict_stands_with_its_three_estimates() -> None:
    world = World(personas=24, layers=(20,), sources=("villain", "comedian"), benign=True)
    quick = AnalysisSettings(layer=20, permutations=99, partial_permutations=99, resamples=100)
    analysis = analyze(measurements(world), similarities(world), personas(world), settings=quick, hypotheses=[A])
    by_source = {v.hypothesis: v for v in analysis.verdicts}
    apart = replace(
        by_source["A/comedian"], outcome="falsified" if by_source["A"].outcome != "falsified" else "confirmed"
    )
    analysis = replace(analysis, verdicts=(by_source["A"], by_source["A/villain"], apart))
    inputs = ReportInput(study="two sources")
    (opening, *_) = openings(analysis, inputs, QuotedNumbers(analysis, inputs), headline_outcomes(analysis, {}), [])
    assert opening.verdict is not None
    said = Markup(opening.verdict).striptags()
    numbers = by_source["A"].numbers
    for name, form in (
        ("source_leakage", "fraction"),
        ("bystander_leakage", "fraction"),
        ("rho", "rho"),
        ("rho_p", "p"),
    ):
        assert format_number(numbers[name], form) in said, name
    assert f"Hypothesis A: {by_source['A'].outcome} ({apart.outcome} for comedian)." in said
    assert "where the benign arm has" in Markup(opening.lead or "").striptags()
