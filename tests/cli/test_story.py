"""What the terminal shows of a run: few lines at its end, the numbers where they are asked for, events in words."""

from __future__ import annotations

from pathlib import Path

from bystander.report.story import LINES
from bystander.results.results import Results
from bystander.study.store.run_dir import RunDir
from tests.support.command import call


def test_a_report_ends_with_the_story_and_the_numbers_are_asked_for(ran: RunDir, tmp_path: Path, capsys):
    page = tmp_path / "r.html"
    code, short, _ = call(capsys, "report", ran.path, "--out", page)
    assert code == 0
    assert [line.rstrip() for line in short.splitlines()] == Results.open(ran.path).story(page)
    assert len(short.splitlines()) <= LINES
    assert f"{page}; next: " in short
    assert "smallest_detectable_rho" not in short
    code, long, _ = call(capsys, "report", ran.path, "--out", page, "--verbose")
    assert code == 0
    assert long.endswith(short)
    assert "smallest_detectable_rho: " in long
    assert "held-out change" in long


def test_a_run_is_analyzed_without_a_report(ran: RunDir, capsys):
    before = {path: path.stat().st_mtime_ns for path in ran.path.rglob("*")}
    code, out, _ = call(capsys, "analyze", ran.path)
    assert code == 0
    assert "Verdict" in out
    assert "Next" in out
    assert {path: path.stat().st_mtime_ns for path in ran.path.rglob("*")} == before


def test_what_was_trained_is_read_from_the_rows(ran: RunDir):
    trained = Results.open(ran.path).asked().trained
    assert {(one.behavior, one.source) for one in trained} >= {("marker", "villain")}
    for one in trained:
        assert one.rows > 0
        assert one.negatives == ("pirate", "spy")
        assert one.seeds == (3,)


def test_status_tells_events_in_words(ran: RunDir, capsys):
    code, out, _ = call(capsys, "status", ran.path)
    assert code == 0
    assert "finished " in out
    assert "of device time" in out
    assert "state started" not in out
