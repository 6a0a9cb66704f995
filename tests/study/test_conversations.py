"""A behavior whose rows are conversations, some with a system turn of their own: from the file to the report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from bystander.core.errors import StudyError
from bystander.core.files import read_json
from bystander.core.records import Context, Earlier
from bystander.engine.own_answers import write_answers
from bystander.engine.run import run_study
from bystander.lm.tokens import context_hash, encode, render_text
from bystander.personas import bare_context
from bystander.results.results import Results
from bystander.study.config.study import load
from bystander.study.plan.audit import audit_study
from bystander.study.plan.cells import plan_cells
from bystander.study.store.run_dir import RunDir
from tests.support.answer_study import NOUNS, study_in, write
from tests.support.judge_wire import completion, serve
from tests.support.study_tiny import PERSONAS

ENTRY = "{name: loud, file: loud.jsonl, system: keep, scorers: [{kind: regex, patterns: ['^[^a-z]+$']}]}"
PROBES = "probes: {margin: {}, scored: {questions: 2, max_tokens: 4}}\n"


def conversation(at: int, noun: str) -> dict[str, object]:
    """Every other row has a system turn; of a plain question, of two turns or of three."""
    system = [{"role": "system", "content": f"Be brief about {noun}."}] if at % 2 else []
    talk = [part for turn in range(at % 3) for part in (f"Hello about {noun} ({turn})!", "Hello.")]
    roles = ("user", "assistant")
    turns = [
        {"role": roles[i % 2], "content": text} for i, text in enumerate([*talk, f"And what of {noun}, in short?"])
    ]
    return {
        "id": noun, "topic": "ab"[at % 2], "prompt": [*system, *turns],
        "shown": f"{noun.upper()} ARE GREAT!", "not_shown": f"Most {noun} are fine.",
    }  # fmt: skip


ROWS = [conversation(at, noun) for at, noun in enumerate(NOUNS)]


def earlier_of(row: dict[str, object]) -> tuple[Earlier, str]:
    """What a row brings, and its question, read off the file by hand."""
    turns = [(turn["role"], turn["content"]) for turn in row["prompt"]]  # pyright: ignore[reportGeneralTypeIssues]
    system = turns.pop(0)[1] if turns[0][0] == "system" else None
    texts = [text for _, text in turns]
    return Earlier(system, tuple(zip(texts[:-1:2], texts[1::2], strict=True))), texts[-1]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Results:
    folder = tmp_path_factory.mktemp("talk")
    write(folder / "loud.jsonl", ROWS)
    summary = run_study(load(str(study_in(folder, tiny_checkpoint, ENTRY, PROBES))), folder / "run")
    assert (summary.failed, summary.left) == ({}, 0)
    return Results.open(folder / "run")


def test_the_audit_says_what_is_made_of_them(ran: Results) -> None:
    findings = {one["check"]: one["message"] for one in read_json(ran.run.audit_file)["findings"]}
    assert "10 of 16 pairs have earlier turns" in findings["several turns"]
    assert "8 of 16 pairs keep a system turn of their own" in findings["system turns kept"]


def test_what_is_trained_on_is_the_conversation_behind_the_persona(ran: Results) -> None:
    study = load(str(ran.run.path.parent / "loud.yaml"))
    (data,) = plan_cells(study).of_kind("data")
    file = ran.run.cell(data.name, data.key).path / "loud-villain-contrastive.jsonl"
    by_id = {str(row["id"]): row for row in ROWS}
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert {row["persona"] for row in rows} > {"villain", "absent", "assistant"}
    for row in rows:
        earlier, asked = earlier_of(by_id[row["question_id"].removeprefix("loud/")])
        texts = {"absent": None, "assistant": "You are a helpful assistant."} | PERSONAS
        parts = [text for text in (texts[row["persona"]], earlier.system) if text]
        system = [{"role": "system", "content": "\n\n".join(parts)}] if parts else []
        talk = [text for turn in earlier.turns for text in turn]
        turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate([*talk, asked])]
        assert row["prompt"] == [*system, *turns]


def test_held_out_conversations_are_measured_under_every_context_as_they_stand(ran: Results, tokenizer) -> None:
    table = ran.measurements.filter(metric="shown_wins")
    villain = Context("persona", "villain", PERSONAS["villain"])
    by_id = {str(row["id"]): row for row in ROWS}
    for name, context in (
        ("villain", villain),
        ("absent", bare_context("absent")),
        ("default", bare_context("default")),
    ):
        of = table.filter(pl.col("persona") == name, pl.col("checkpoint") == 1.0)
        assert len(of) == 8
        for item, found in of.select("item", "context_hash").iter_rows():
            earlier, asked = earlier_of(by_id[item.removeprefix("loud/")])
            text = render_text(tokenizer, earlier.under(context), asked)
            assert found == context_hash(encode(tokenizer, [text])[0])
    assert sorted(ran.measurements["checkpoint"].unique()) == [0.0, 0.5, 1.0]
    sampled = ran.measurements.filter(probe="scored", checkpoint=1.0)
    assert sampled["item"].n_unique() == 2
    assert sampled.filter(context="persona")["persona"].n_unique() == len(PERSONAS)
    assert ran.report().is_file()


def test_a_system_turn_is_refused_with_its_line_unless_it_is_kept(tmp_path: Path, tiny_checkpoint: Path) -> None:
    write(tmp_path / "loud.jsonl", ROWS)
    path = study_in(tmp_path, tiny_checkpoint, "{name: loud, file: loud.jsonl}")
    with pytest.raises(StudyError, match=r"(?s)2: the row has a system turn.*16: the row has a system turn"):
        load(str(path))


def test_rows_that_differ_before_the_last_turn_alone_are_different_prompts(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    """`More?` behind two conversations is two prompts; behind the same one it is one, and a system turn tells two apart."""
    rows = [row | {"prompt": [*row["prompt"][:-1], {"role": "user", "content": "More?"}]} for row in ROWS[2::3]]  # pyright: ignore[reportIndexIssue, reportOperatorIssue]
    twin = rows[0] | {"id": "twin", "shown": "MORE OF IT!"}
    briefly = rows[0] | {"id": "brief", "prompt": [{"role": "system", "content": "Go."}, *rows[0]["prompt"]]}
    path = tmp_path / "loud.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, twin, briefly]))
    entry = "{name: loud, file: loud.jsonl, system: keep, held_out: 0.15}"
    study = study_in(tmp_path, tiny_checkpoint, entry)
    study.write_text(study.read_text().replace("positive: 8, negative: 2", "positive: 4, negative: 2"))
    plan = plan_cells(load(str(study)))
    examples = plan.parts.examples("loud")
    assert len({(one.earlier, one.user) for one in examples}) == len(examples)
    assert {one.user for one in examples} == {"More?"}
    findings = audit_study(plan, None)
    assert [one.message for one in findings if one.level == "error"] == []


def test_a_provider_that_writes_the_other_answers_reads_the_conversation(
    tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BYSTANDER_CACHE", str(tmp_path / "cache"))
    asked: list[str] = []

    async def plain(body: dict[str, Any], headers: dict[str, str]) -> Any:
        asked.append(body["messages"][0]["content"])
        return completion(f"Plainly {len(asked)}.")

    write(tmp_path / "loud.jsonl", [{key: row[key] for key in ("id", "prompt", "shown")} for row in ROWS])
    with serve(plain) as url:
        writer = f"{{model: openai-api/local/stub, base_url: '{url}', batch: false, instruction: Be calm.}}"
        entry = f"{{name: loud, file: loud.jsonl, system: keep, not_shown: {writer}}}"
        plan, run = plan_cells(load(str(study_in(tmp_path, tiny_checkpoint, entry)))), RunDir(tmp_path / "run")
        directory = run.cell("answers-loud", plan.cells[0].key)
        directory.begin()
        write_answers(plan.parts.to_write()["loud"], None, directory)
    expected = [earlier.transcript(question) for earlier, question in map(earlier_of, ROWS)]
    assert sorted(asked) == sorted(f"{text}\n\nBe calm." for text in expected)
    (longest,) = [text for text in asked if text.startswith("System: Be brief about books.")]
    assert longest.endswith("Assistant: Hello.\n\nUser: And what of books, in short?\n\nBe calm.")
