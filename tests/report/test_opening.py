"""The sentences that a report opens with."""

from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest
from markupsafe import Markup

from bystander.report.contexts import sentences
from bystander.report.figures.frames import levels
from bystander.report.headline import headline_outcomes
from bystander.report.next_steps import next_steps
from bystander.report.numbers import QuotedNumbers
from bystander.report.opening import _bare, openings
from bystander.report.sections import _first_names
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
    assert ("0.063" in said, "in the benign arm" in said, "went from" in said) == (
        not untrained,
        not untrained,
        untrained,
    )
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
