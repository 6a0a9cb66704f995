"""A study's own rubrics and kept answers: another judge is asked, or the same judge's replies are read again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from bystander.core.errors import JudgeError, StoreError
from bystander.core.files import compressed_lines, read_lines, write_bytes
from bystander.core.progress import Silent
from bystander.engine.run import run_study
from bystander.judge.judging import PREFLIGHT
from bystander.judge.settings import JudgeSettings
from bystander.results.rejudge import judge_run
from bystander.results.reparse import reparse_run
from bystander.results.results import Results
from bystander.study.config.schema import study_model
from bystander.study.config.study import load
from tests.support.answer_study import rows, study_in, write
from tests.support.command import call
from tests.support.judge_wire import completion, serve

pytest.importorskip("inspect_ai")

ENTRY = (
    "{name: loud, file: loud.jsonl, scorers: ["
    "{kind: regex, patterns: ['^[^a-z]+$']},"
    " {kind: judge, prompt: loud.txt, range: [1, 7], shown_at_least: 5, closing: 'Loudness: {score}', draws: 2},"
    " {kind: judge, name: named, prompt: '{answer} LOUD or QUIET?', classes: [LOUD, QUIET], shown: [LOUD]}]}"
)
PROBES = "probes: {{margin: {{}}, scored: {{questions: 2, max_tokens: 4, judge: {judge}}}}}\n"
RUBRICS = ["loud.judge", "loud.named"]
ON = ["source", "checkpoint", "context", "persona", "dataset", "metric", "item"]


class Server:
    """A judge that says how loud by the length of what it reads, `plus` more, and counts what it is asked."""

    def __init__(self, plus: int) -> None:
        self.plus, self.asked, self.temperatures = plus, 0, set[float]()

    async def __call__(self, body: dict[str, Any], headers: dict[str, str]) -> Any:
        del headers
        prompt = body["messages"][0]["content"]
        self.asked += 1
        if prompt != PREFLIGHT:
            self.temperatures.add(body["temperature"])
        loud = 1 + (len(prompt) + self.plus) % 7
        if prompt.endswith("LOUD or QUIET?"):
            return completion("LOUD" if loud > 3 else "quiet.")
        return completion(f"I look at it.\n\nLoudness: {loud}", written=9)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """A finished run whose study's files are gone since."""
    folder = tmp_path_factory.mktemp("again")
    write(folder / "loud.jsonl", rows())
    (folder / "loud.txt").write_text("How loud? {question} {answer} Close with `Loudness: NUMBER`.")
    with pytest.MonkeyPatch.context() as patch, serve(Server(0)) as url:
        patch.setenv("BYSTANDER_CACHE", str(folder / "cache"))
        judge = f"{{model: openai-api/lab/own, base_url: '{url}', temperature: 0.5, max_tokens: 64}}"
        study = load(str(study_in(folder, tiny_checkpoint, ENTRY, PROBES.format(judge=judge))))
        assert run_study(study, folder / "run").failed == {}
    (folder / "loud.jsonl").unlink()
    (folder / "loud.txt").unlink()
    return folder / "run"


def of_rubrics(table: pl.DataFrame) -> pl.DataFrame:
    return table.filter(pl.col("dataset").is_in(RUBRICS)).sort(ON)


def test_another_judge_is_asked_by_the_studys_own_rubrics(folder: Path, tmp_path: Path) -> None:
    results = Results.open(folder)
    own = of_rubrics(results.measurements)
    server = Server(2)
    with serve(server) as url:
        settings = JudgeSettings(model="openai-api/lab/other", base_url=url)
        found = judge_run(results.run, results.study, settings, tmp_path / "judge.sqlite", Silent())
        asked = server.asked
        again = judge_run(results.run, results.study, settings, tmp_path / "judge.sqlite", Silent())
    assert again.measured.equals(found.measured)
    assert (server.asked, again.ledger.requests) == (asked, 0), "nothing is asked or paid for twice"
    assert server.temperatures == {0.5}, "draws are sampled as the study has it"
    table = found.measured.sort(ON)
    assert set(table["dataset"]) == set(RUBRICS)
    assert table.select(ON).equals(own.select(ON)), "every rubric's row is there, and no other scorer's"
    answers = own.filter(dataset="loud.named").height
    assert (found.completions, found.failed) == (answers, 0)
    assert not table["value"].equals(own["value"])
    both = own.join(table, on=ON, nulls_equal=True).filter(dataset="loud.judge", metric="score")
    # 2 more of 7 levels, around the end: 100 / 6 points a level.
    apart = ((both["value_right"] - both["value"]) * 6 / 100).round().cast(int).unique().to_list()
    assert set(apart) <= {2, -5}
    assert Results.open(folder).measurements.equals(results.measurements), "the run's own judge stays the run's"
    kept = read_lines(found.folder / "judgements.jsonl.zst")
    assert {len(line["replies"]) for line in kept} == {1, 2}
    summary = json.loads((found.folder / "judge.json").read_text())
    assert summary["completions"] == answers


def test_the_command_says_how_the_two_judges_agree(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("BYSTANDER_CACHE", str(tmp_path))
    with serve(Server(0)) as url:
        code, out, err = call(capsys, "judge", folder, "--model", "openai-api/lab/third", "--base-url", url)
    assert code == 0, err
    assert "rank correlation 1.00, mean distance 0.0 points" in out
    assert "loud.judge/score" in out


def damaged(run: Path, change: Callable[[dict[str, Any]], None]) -> list[tuple[Path, bytes]]:
    """Every cell's kept replies changed, and what they were."""
    before: list[tuple[Path, bytes]] = []
    for path in sorted(run.glob("cells/*/details.jsonl.zst")):
        before.append((path, path.read_bytes()))
        lines = read_lines(path)
        for line in lines:
            for reply in line.get("replies", ()):
                change(reply)
        write_bytes(path, compressed_lines(lines))
    assert before
    return before


def test_kept_replies_are_read_again_without_asking(folder: Path) -> None:
    """As an earlier version might have kept them that could not read the closing line: the numbers come back, in the report."""
    results = Results.open(folder)
    own = of_rubrics(results.measurements)
    texts = 0

    def unread(reply: dict[str, Any]) -> None:
        nonlocal texts
        texts += reply["text"].startswith("I look")
        if reply["text"].startswith("I look"):
            reply.update(number=None, reason="not understood")

    before = damaged(folder, unread)
    found = reparse_run(results.run, results.study, "openai-api/lab/own", None)
    assert (found.failed_before, found.changed, found.failed) == (texts, texts, 0)
    assert of_rubrics(found.measured).select(*ON, "value").equals(own.select(*ON, "value"))
    again = Results.open(folder)
    assert of_rubrics(again.measurements).select(*ON, "value").equals(own.select(*ON, "value"))
    assert again.measurements.height == results.measurements.height
    assert any("its kept answers read again" in note for note in again.analyze().notes)
    second = reparse_run(results.run, results.study, None, None)
    assert (second.changed, second.judgements) == (0, found.judgements)
    for path, content in before:
        path.write_bytes(content)


def test_what_cannot_be_judged_is_said(folder: Path) -> None:
    results = Results.open(folder)
    with pytest.raises(StoreError, match="keeps no answers of openai/x"):
        reparse_run(results.run, results.study, "openai/x", None)
    (copy,) = (folder / "files").rglob("loud.jsonl")
    content = copy.read_text()
    copy.write_text(content.replace("rivers", "streams"))
    with pytest.raises(StoreError, match="missing or was changed"):
        reparse_run(results.run, results.study, None, None)
    copy.write_text(content)
    values = results.study.spec.resolved()
    values["probes"]["scored"]["questions"] = 1
    fewer = replace(results.study, spec=study_model().model_validate(values))
    with pytest.raises(JudgeError, match="which the study does not ask now"):
        judge_run(results.run, fewer, JudgeSettings(model="openai/x"), None, Silent())
