"""The board of many studies and the comparison of several."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from bystander.core.errors import DataError
from bystander.report import BOARD_STATES, BoardCard, BoardEvent, CostLine, write_board, write_compare
from bystander.report.board import bar, safe_link
from bystander.report.compare import correlations, differences
from bystander.report.labels import format_number
from tests.support.report_page import Elements
from tests.support.report_synthetic import Size, synthetic

SMALL = Size(
    personas=20, sources=("villain", "comedian"), behaviors=("marker",), arms=("contrastive",), layers=(25,), sweep=False,
    completions=0,
)  # fmt: skip


def cards() -> list[BoardCard]:
    cost = [CostLine("GPU-hours", "h", 12.0, 3.0), CostLine("judge", "USD", 40.0, 44.0)]
    events = [
        BoardEvent("2026-11-24T07:00:00+00:00", "planned"),
        BoardEvent("2026-11-24T07:10:00+00:00", "approved", "4f2a"),
    ]
    return [
        BoardCard("pilot", "running", "Does it leak?", "runs/pilot", [("A", "open")], "", cost, 3, 1, 1, 9, "", events),
        BoardCard("quick", "done", hypotheses=[("marker", "confirmed")], report="quick/report.html"),
        BoardCard("<img src=x onerror=alert(1)>", "failed", report="javascript:alert(1)"),
    ]


def test_every_state_has_its_column_and_every_study_its_card(tmp_path: Path) -> None:
    text = write_board(cards(), tmp_path).read_text(encoding="utf-8")
    tags = Elements(text).tags
    assert tuple(a["data-state"] for t, a in tags if t == "section") == BOARD_STATES
    column = re.search(r'data-state="running".*?</section>', text, re.DOTALL)[0]
    assert 'data-study="pilot"' in column
    assert 'data-study="quick"' not in column
    assert "3 of 9 cells, 1 running" in re.sub(r"\s+", " ", column)
    assert column.index("planned") < column.index("approved")
    links = [a["href"] for t, a in tags if t == "a"]
    assert links == ["quick/report.html"]
    assert not [t for t, _ in tags if t == "img"]


def test_a_board_of_no_study_says_so(tmp_path: Path) -> None:
    assert "No study was found" in write_board([], tmp_path / "board.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("line", "share", "over"),
    [
        (CostLine("h", "h", 12.0, 3.0), 25, False), (CostLine("h", "h", 40.0, 44.0), 100, True),
        (CostLine("h", "h", None, 3.0), 100, False), (CostLine("h", "h", 5.0, None), 0, False),
        (CostLine("h", "h", None, None), 0, False),
    ],
)  # fmt: skip
def test_spend_against_forecast(line: CostLine, share: int, over: bool) -> None:
    drawn = bar(line)
    assert (drawn.spent_share, drawn.over) == (share, over)


@pytest.mark.parametrize(
    ("link", "kept"),
    [
        ("a/report.html", "a/report.html"), ("../b/report.html", "../b/report.html"), ("javascript:alert(1)", ""),
        ("https://example.invalid/", ""), ("//example.invalid/", ""), (" JavaScript:x", ""), ("\\\\host\\x", ""),
    ],
)  # fmt: skip
def test_links_of_a_card_stay_in_the_folder(link: str, kept: str) -> None:
    assert safe_link(link) == kept


@pytest.fixture(scope="module")
def pair():
    first, second = synthetic(SMALL), synthetic(SMALL, seed=3)
    changed = replace(second[1], settings={**second[1].settings, "recipe.lr": 0.0002, "seeds": 3}, model="other")
    return [("small", *first), ("large", second[0], changed)]


def test_a_comparison_quotes_the_records_of_each_study(pair, tmp_path: Path) -> None:
    path = write_compare(pair, tmp_path)
    analyses = {name: (analysis, inputs) for name, analysis, inputs in pair}
    quoted = Elements(path.read_text(encoding="utf-8")).quoted
    seen: set[str] = set()
    for attributes, shown in quoted:
        name, record = attributes["data-record"].split(":", 1)
        seen.add(name)
        analysis, inputs = analyses[name]
        if record.startswith("inputs/settings/"):
            cell = inputs.settings.get(record.removeprefix("inputs/settings/"))
        elif attributes["data-column"] == "p" and record.startswith("pooled/"):
            cell = analysis.value(record, "p_matrix")
        else:
            cell = analysis.value(record, attributes["data-column"])
        assert shown.strip() == format_number(cell, attributes.get("data-form") or "plain"), attributes
    assert seen == {"small", "large"}
    assert (tmp_path / "figures" / "forest.svg").is_file()


def test_the_forest_has_each_gradient_and_the_pooled_one_once(pair) -> None:
    frame = correlations(pair)
    assert frame.height == 2 * (2 + 1)
    assert frame.filter(pooled=True).height == 2
    row = frame.filter(run="large", source="villain").to_dicts()[0]
    assert row["rho"] == pair[1][1].value(row["record"].split(":", 1)[1], "rho")


def test_only_settings_that_differ_are_shown(pair) -> None:
    found = {d.key: d.values for d in differences(pair)}
    assert found == {"recipe.lr": (0.001, 0.0002), "seeds": (None, 3)}


@pytest.mark.parametrize("names", [["one"], ["same", "same"], []])
def test_what_cannot_be_compared(names: list[str], pair, tmp_path: Path) -> None:
    studies = [(name, pair[0][1], pair[0][2]) for name in names]
    with pytest.raises(DataError):
        write_compare(studies, tmp_path)
    assert not list(tmp_path.iterdir())


def test_pages_are_well_formed(pair, tmp_path: Path) -> None:
    class Balance(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag not in {"meta", "input", "br"}:
                self.open.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert self.open.pop() == tag

    for path in (write_board(cards(), tmp_path), write_compare(pair, tmp_path)):
        parser = Balance()
        parser.feed(path.read_text(encoding="utf-8"))
        assert parser.open == []
