"""The sentences that a report opens with."""

from __future__ import annotations

import pytest

from bystander.report.opening import _bare


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
