"""Sentences follow the sign of what was found, and one number has one interval on a page."""

from __future__ import annotations

import re
from dataclasses import replace

import polars as pl
import pytest

from bystander.analysis import Analysis, AnalysisSettings, analyze
from bystander.report import ReportInput
from bystander.report.headline import headline_outcomes
from bystander.report.numbers import QuotedNumbers
from bystander.report.sentences import verdict
from tests.support.analysis_study import World, measurements, personas, similarities

QUICK = AnalysisSettings(layer=20, permutations=199, partial_permutations=99, resamples=200)
AWAY = World(
    questions=300, base=0.4, source_drop=-0.5, drop=-0.3, slope=0.0, personas=20, layers=(20,)
)  # accuracy rises everywhere


def analysis(world: World) -> Analysis:
    return analyze(measurements(world), similarities(world), personas(world), settings=QUICK)


def said(found: Analysis) -> str:
    (headline,) = headline_outcomes(found, {})
    sentences = verdict(found, QuotedNumbers(found, ReportInput()), headline).sentences
    return re.sub(r"<[^>]+>", "", " ".join(sentences))


def test_an_effect_in_the_behavior_s_direction():
    text = said(analysis(World(personas=20, layers=(20,))))
    assert re.search(
        r"Training took hold: the source&#39;s accuracy fell by 0\.\d+ \[|took hold: the source's accuracy fell by 0\.\d",
        text,
    )
    assert "against the behavior" not in text
    assert re.search(r"it went furthest into [\w ]+, by 0\.\d", text)
    assert "of what the source got" in text


def test_a_fall_of_minus_a_half_is_a_rise():
    text = said(analysis(AWAY))
    assert re.search(
        r"Training moved the source the other way: the source.{1,5}s accuracy rose against the behavior, a leakage of −0\.\d+ \[−0",
        text,
    )
    assert re.search(r"Held-out bystanders changed on average by −0\.\d+ \(against the behavior\)", text)
    assert re.search(r"it reached none \(the most, in [\w ]+, is −0\.\d+\); without a benign arm", text)
    assert "fell by −" not in text
    assert "furthest" not in text
    assert "of what the source got" not in text, "a source that got nothing has no share to give"


def test_sources_that_move_apart_have_a_verb_each():
    found = analysis(replace(AWAY, sources=("villain", "comedian")))
    ends = [pl.col(f"source_{name}") for name in ("leakage", "low", "high")]
    turned = pl.when(pl.col("source") == "comedian")
    flipped = found.leakage_ratio.with_columns(
        turned.then(-end).otherwise(end).alias(end.meta.output_name()) for end in ends
    )
    text = said(replace(found, leakage_ratio=flipped))
    assert re.search(r"accuracy rose against the behavior, a leakage of −0\.\d+ .* in \w+ and fell by 0\.\d+ ", text)


def test_other_arms_too():
    text = said(analysis(replace(AWAY, arms=("contrastive", "non_contrastive"))))
    changed = "in the non-contrastive arm bystanders changed from the untrained model, on average, by"
    assert re.search(rf"{changed} −0\.\d+ against the behavior", text)


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_one_number_has_one_interval_on_a_page(seeds: tuple[int, ...]):
    """The source's leakage stands in the verdict, among the roles, the personas and the leakage ratios; a category of one
    persona among the personas."""
    found = analysis(World(sources=("villain", "comedian"), seeds=seeds, personas=20, categories=18, layers=(20,)))
    wide = found.leakage_ratio.filter(found.leakage_ratio["seed"].is_null())
    for row in wide.iter_rows(named=True):
        own = found.leakage.filter(source=row["source"], persona=row["source"], role="source")
        own = own.filter(own["seed"].is_null()).row(0, named=True)
        role = found.roles.filter(source=row["source"], role="source")
        role = role.filter(role["seed"].is_null()).row(0, named=True)
        ends = {(each["low"], each["high"]) for each in (own, role)} | {(row["source_low"], row["source_high"])}
        assert len(ends) == 1
    single = found.categories.filter((found.categories["n"] == 1) & found.categories["seed"].is_null())
    assert single.height
    for row in single.iter_rows(named=True):
        own = found.leakage.filter(source=row["source"], persona=row["reason"])
        own = own.filter(own["seed"].is_null()).row(0, named=True)
        assert (own["leakage"], own["low"], own["high"]) == (row["leakage"], row["low"], row["high"])
