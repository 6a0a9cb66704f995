"""A number that says nothing is not quoted: a half beyond the similarities that were seen, a ratio to a source that did not
move. Words stand in its place, on the page, in its tables and in its sentences; the record keeps it."""

from __future__ import annotations

import re
from dataclasses import replace

import polars as pl
import pytest
from markupsafe import Markup

from bystander.analysis import Analysis, AnalysisSettings, analyze
from bystander.analysis.hypotheses import A
from bystander.report import ReportInput, sections
from bystander.report.headline import HeadlineOutcome, headline_outcomes
from bystander.report.numbers import QuotedNumbers
from bystander.report.page import render
from bystander.report.sentences import verdict
from bystander.report.tables import LONG, Table
from tests.support.analysis_study import World, measurements, personas, similarities
from tests.support.report_page import Elements

QUICK = AnalysisSettings(layer=20, permutations=99, partial_permutations=99, resamples=100)
NOT_DEFINED = "not defined: the source did not move"
BEYOND = "beyond the range seen"


@pytest.fixture(scope="module")
def found() -> Analysis:
    world = World(personas=24, layers=(20,))
    return analyze(measurements(world), similarities(world), personas(world), settings=QUICK, hypotheses=[A])


def still(analysis: Analysis, *, unmoved: bool | None) -> Analysis:
    return replace(analysis, leakage_ratio=analysis.leakage_ratio.with_columns(
        unmoved=pl.lit(unmoved, pl.Boolean), ratio=pl.lit(7.77), ratio_low=pl.lit(-55.5), ratio_high=pl.lit(66.6)
    ))  # fmt: skip


def halves(analysis: Analysis, *, half: bool, high: bool) -> Analysis:
    flags = {"half_beyond": half, "half_low_beyond": False, "half_high_beyond": high}
    values = {"half": 1.24, "half_low": 0.83, "half_high": 1.43}
    columns = {name: pl.lit(value) for name, value in (flags | values).items()}
    return replace(
        analysis,
        captured=analysis.captured.with_columns(**columns),
        captured_over_sources=analysis.captured_over_sources.with_columns(**columns),
    )


def said(analysis: Analysis) -> str:
    (headline,) = headline_outcomes(analysis, {})
    sentences = verdict(analysis, QuotedNumbers(analysis, ReportInput()), headline).sentences
    return Markup(" ".join(sentences)).striptags()


def cell(made: Table, key: str) -> tuple[list[str], list[bool]]:
    (view,) = [view for view in made.cells(made.rows[0]) if view.column.key == key]
    return [part.text for part in view.parts], [part.quoted for part in view.parts]


def of(analysis: Analysis) -> tuple[list[HeadlineOutcome], list[str]]:
    return headline_outcomes(analysis, {}), ["contrastive"]


def test_a_ratio_to_a_source_that_did_not_move_is_said_to_be_none(found: Analysis) -> None:
    moved, unmoved = still(found, unmoved=False), still(found, unmoved=True)
    assert "7.77 of what the source got" in said(moved)
    assert f"leakage ratio {NOT_DEFINED}" in said(unmoved)
    assert "of what the source got" not in said(unmoved)
    for one, text, ends in ((moved, "7.77", ["−55.50", "66.60"]), (unmoved, NOT_DEFINED, ["", ""])):
        made = sections.leakage_ratio(one, *of(one))
        assert cell(made, "ratio") == ([text], [one is moved])
        assert cell(made, "ratio_low") == (ends, [one is moved] * 2)
    unknown = sections.leakage_ratio(still(found, unmoved=None), *of(found))
    assert cell(unknown, "ratio") == (["7.77"], [True])


def test_a_half_beyond_what_was_seen_is_said_to_lie_there(found: Analysis) -> None:
    seen, end, beyond = (halves(found, half=h, high=e) for h, e in ((False, False), (False, True), (True, True)))
    assert "alf are captured at a similarity of 1.24 [0.83, 1.43]." in said(seen)
    assert "alf are captured at a similarity of 1.24 [0.83, beyond]." in said(end)
    assert f"he similarity at which half are captured lies {BEYOND}." in said(beyond)
    assert not re.search(r"1\.24|1\.43", said(beyond))
    for make in (sections.captured, sections.captured_over_sources):
        assert cell(make(seen, *of(seen)), "half") == (["1.24"], [True])
        assert cell(make(end, *of(end)), "half_low") == (["0.83", "beyond"], [True, False])
        assert cell(make(beyond, *of(beyond)), "half") == ([BEYOND], [False])


def test_the_page_has_the_words_and_no_such_number_anywhere(found: Analysis) -> None:
    analysis = halves(still(found, unmoved=True), half=True, high=True)
    text = render(analysis, ReportInput(study="still"), {})
    shown = re.sub(r"<(script|style)[^>]*>.*?</\1>", "", text, flags=re.DOTALL)
    assert NOT_DEFINED in shown
    assert BEYOND in shown
    assert not re.search(r"7\.77|55\.5|66\.6|1\.24|1\.43", shown)
    quoted = {(attributes["data-column"], shown) for attributes, shown in Elements(text).quoted}
    assert not [one for one in quoted if one[0] in ("ratio", "ratio_low", "half", "half_high")]
    assert ("half_low", "0.83") in quoted


def test_a_long_table_carries_the_words_to_the_script(found: Analysis) -> None:
    analysis = still(found, unmoved=True)
    made = sections.leakage_ratio(analysis, *of(analysis))
    long = replace(made, rows=made.rows * (LONG + 1))
    packed = long.packed()
    words = packed["instead"]
    assert isinstance(words, dict)
    assert words["ratio"] == [NOT_DEFINED] * (LONG + 1)
    assert words["ratio_high"] == [""] * (LONG + 1)


def test_a_verdict_has_no_ratio_where_a_source_did_not_move() -> None:
    still_world = World(personas=24, layers=(20,), source_drop=0.0, drop=0.0, slope=0.0)
    analysis = analyze(
        measurements(still_world), similarities(still_world), personas(still_world), settings=QUICK, hypotheses=[A]
    )
    (row,) = analysis.leakage_ratio.to_dicts()
    assert row["unmoved"] is True
    assert row["source_low"] <= 0 <= row["source_high"]
    (whole,) = analysis.verdicts
    assert whole.numbers["leakage_ratio"] == NOT_DEFINED
    moving = analyze(
        measurements(World(personas=24, layers=(20,))), similarities(World(personas=24, layers=(20,))),
        personas(World(personas=24, layers=(20,))), settings=QUICK, hypotheses=[A],
    )  # fmt: skip
    (row,) = moving.leakage_ratio.to_dicts()
    assert row["unmoved"] is False
    assert moving.verdicts[0].numbers["leakage_ratio"] == pytest.approx(row["ratio"])
