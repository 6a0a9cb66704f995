"""docs/forecast.md and the fits that ship are what the tool makes of the tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from bystander.analysis.leakage_fit import fit_leakage
from bystander.results.fit_sources import shipped, shipped_fits
from tests.support.program import program

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tool():
    return program(ROOT / "tools" / "docs" / "forecast_page.py")


@pytest.fixture(scope="module")
def published(tool, shared_data: Path):
    return tool.published(shared_data / "reference" / "marker_leakage_111.csv")


def test_the_published_study_is_read_whole(published):
    assert [one.source for one in published] == [
        "assistant",
        "comedian",
        "kindergarten_teacher",
        "software_engineer",
        "villain",
    ]
    assert [len(one.names) for one in published] == [110] * 5
    assert published[4].change.max() == 1.0


def test_the_page_has_a_section_for_every_study_below_its_head(tool):
    page = (ROOT / "docs" / "forecast.md").read_text()
    assert page.startswith(tool.HEAD.read_text())
    titles = [line[3:] for line in page.splitlines() if line.startswith("## ")]
    assert [title for title, *_ in tool.SHIPPED_STUDIES] == titles[-6:-1]
    assert titles[-1] == "Marker, both"


def test_the_published_section_is_what_its_table_gives(tool, published):
    page = (ROOT / "docs" / "forecast.md").read_text()
    title = "Marker, published, Qwen2.5-7B-Instruct"
    assert "\n".join(tool.section(title, published)) in page


def test_a_shipped_fit_is_that_of_its_tables(tool):
    _, folder, behavior, outcome = tool.SHIPPED_STUDIES[2]
    made, kept = fit_leakage(tool.shipped(folder, behavior, outcome)), shipped(behavior, outcome)
    assert kept is not None
    assert (made.made_of, made.features) == (kept.made_of, kept.features)
    assert made.values.weights == pytest.approx(kept.values.weights, abs=1e-6)
    assert made.half_width == pytest.approx(kept.half_width, abs=1e-6)
    assert {k: v.value for k, v in made.skill.items()} == pytest.approx(
        {k: v.value for k, v in kept.skill.items()}, abs=1e-6
    )


def test_only_the_marker_is_foretold_beyond_the_baselines():
    assert {one.behavior for one in shipped_fits() if one.has_skill} == {"marker"}
