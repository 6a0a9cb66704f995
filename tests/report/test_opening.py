"""The sentences that a report opens with."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest
from markupsafe import Markup

from bystander.analysis import AnalysisSettings, analyze
from bystander.analysis.hypotheses import A
from bystander.report import ReportInput
from bystander.report.contexts import sentences
from bystander.report.figures.frames import levels
from bystander.report.headline import captures, headline_outcomes
from bystander.report.labels import format_number
from bystander.report.next_steps import next_steps
from bystander.report.numbers import QuotedNumbers
from bystander.report.opening import _bare, openings
from bystander.report.sections import _first_names
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
            ". Without a persona too: default, empty (by kindergarten teacher)",
        ),
    ],
)
def test_captured_contexts_without_a_persona_are_named(rows: list[dict[str, str]], said: str) -> None:
    assert str(_bare(rows)) == said


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
    assert all(
        ("(benign arm) 0.063 → " in one.striptags()) is not untrained for one in sentences(analysis, numbers, chosen[0])
    )
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
    ("count", "said"), [(0, ""), (2, "nice 0, nice 1"), (13, "nice 12"), (94, "nice 11 and 82 others")]
)
def test_a_cell_names_the_first_of_many_who_were_captured(count: int, said: str) -> None:
    cell = _first_names(", ".join(f"nice_{index}" for index in range(count)))
    assert cell.endswith(said)
    assert cell.count("nice") == (count if count <= 13 else 12)


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
    first = openings(analysis, inputs, numbers, [headline], [])[0].lead
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
