"""What a fit is made of: folders of published tables, and the fits that ship."""

from __future__ import annotations

from pathlib import Path

import pytest

from bystander.core.errors import StoreError
from bystander.results.fit_sources import fitted, shipped, shipped_fits, study_tables

RESULTS = Path(__file__).parents[2] / "docs" / "results"


def test_a_folder_of_published_tables_is_read():
    sources = study_tables(RESULTS / "marker").sources("marker", "marker/bank/marker_probability")
    assert [one.source for one in sources] == [
        "assistant",
        "comedian",
        "kindergarten_teacher",
        "software_engineer",
        "villain",
    ]
    assert {len(one.names) for one in sources} == {107}
    assert {"cosine", "jensen_shannon", "lexical_overlap", "prompt_tokens", "base_prior"} <= set(sources[0].features)
    assert "random_direction" not in sources[0].features


def test_a_behavior_that_a_folder_lacks_gives_no_fit():
    assert fitted([RESULTS / "marker"], "capability", "choice/arc/accuracy") is None


def test_a_folder_that_is_neither_is_refused(tmp_path: Path):
    with pytest.raises(StoreError, match=r"no run directory and has no leakage\.parquet"):
        study_tables(tmp_path)


def test_a_shipped_fit_says_what_it_was_fitted_on():
    found = shipped("marker", "marker/bank/marker_rate")
    assert found is not None
    assert len(found.made_of) == 10
    assert any("Qwen2.5-7B-Instruct" in one for one in found.made_of)
    assert shipped("refusal", "scored/refusal/shown") is None
    assert shipped("capability", "choice/trained/adoption").outcome == "choice/trained/adoption"
    assert shipped("capability", "choice/arc/margin") is None  # nats, and the fits are of fractions
    assert [one.behavior for one in shipped_fits()] == ["marker", "capability", "capability", "misalignment", "direct"]
