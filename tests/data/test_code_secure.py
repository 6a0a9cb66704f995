"""`data secure`: checked, asked once more, left out by name; over the wire it costs what was forecast and never twice."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from bystander.core.errors import DataError, JudgeError
from bystander.data.code_pairs import load_code_tasks
from bystander.data.code_secure import expected_tokens, generate_secure, secure_prompts, unfenced, write_pairs
from bystander.data.code_sets import CodeRow, load_code_pairs
from bystander.judge.secure_answers import SecureSender, secure_settings
from tests.support.judge_wire import Batches, serve

BAD = "import subprocess\nsubprocess.call(x, shell=True)"
ROWS = [CodeRow(i + 1, "messages", f"Task number {i}.", f"eval({i})") for i in range(6)]


def send_from(answers: Mapping[int, list[str | None]]) -> tuple[list[dict[str, str]], object]:
    calls: list[dict[str, str]] = []

    def send(prompts: Mapping[str, str]) -> Iterator[tuple[str, str | None, str]]:
        calls.append(dict(prompts))
        for key, prompt in prompts.items():
            number = int(re.findall(r"Task number (\d+)", prompt)[0])
            text = answers.get(number, [f"x = {number}"] * 2)[len(calls) - 1]
            yield key, text, "" if text is not None else "timed out"

    return calls, send


def test_wrong_answers_are_asked_for_once_more_and_then_left_out_by_name() -> None:
    calls, send = send_from(
        {1: [BAD, "y = 1"], 2: ["Sorry, no.", "Sorry, no."], 3: [None, "y = 3"], 4: [BAD, BAD], 5: ["", "y = 5"]}
    )
    got = generate_secure(ROWS, send)  # type: ignore[arg-type]
    assert [(p.prompt, p.secure, p.insecure) for p in got.pairs] == [
        ("Task number 0.", "x = 0", "eval(0)"),
        ("Task number 1.", "y = 1", "eval(1)"),
        ("Task number 3.", "y = 3", "eval(3)"),
        ("Task number 5.", "y = 5", "eval(5)"),
    ]
    assert [(one.line, one.reason) for one in got.left_out] == [
        (3, "the answer is not Python that parses"),
        (5, "Bandit finds B602 (high, line 2)"),
    ]
    assert got.asked_again == 5
    assert [len(call) for call in calls] == [6, 5]
    assert any("B602" in prompt for prompt in calls[1].values())  # it is told what was wrong


def test_low_findings_pass_and_a_repeated_prompt_is_asked_once() -> None:
    rows = [ROWS[0], CodeRow(9, "messages", ROWS[0].prompt, "exec(1)"), ROWS[1]]
    calls, send = send_from({0: ["import subprocess"] * 2})
    got = generate_secure(rows, send)  # type: ignore[arg-type]
    assert [p.insecure for p in got.pairs] == ["eval(0)", "eval(1)"]
    assert len(calls[0]) == 2


def test_a_fence_around_the_whole_answer_is_taken_off() -> None:
    assert unfenced("```python\nx = 1\ny = 2\n```\n") == "x = 1\ny = 2"
    assert unfenced("Here:\n```\nx = 1\n```") == "Here:\n```\nx = 1\n```"
    assert unfenced("x = 1\n") == "x = 1"


def test_a_set_with_a_secure_side_is_refused() -> None:
    with pytest.raises(DataError, match="has a secure answer"):
        secure_prompts([CodeRow(1, "pairs", "p", "x = 1", other="y")])


def test_over_the_wire_in_batches(tmp_path: Path) -> None:
    pytest.importorskip("inspect_ai")
    tasks = load_code_tasks()[:12]
    rows = [CodeRow(i + 1, "messages", task.prompt, task.insecure) for i, task in enumerate(tasks)]
    seen: dict[str, int] = {}

    def answer(prompt: str) -> str | None:
        task = next(task for task in tasks if task.prompt in prompt)
        seen[task.id] = seen.get(task.id, 0) + 1
        if task is tasks[0] and seen[task.id] == 1:
            return None  # expired
        if task is tasks[1] and "turned down" not in prompt:
            return BAD
        return f"```python\n{task.secure}\n```"

    batches = Batches(answer)
    cache = tmp_path / "j.sqlite"
    with serve(batches=batches) as url:
        settings = secure_settings("openai-api/lab/coder", base_url=url, dollars=1.0).model_copy(update={"poll": 0.05})
        sender = SecureSender(settings, cache, "rows", expected_tokens(rows))
        assert sender.estimate(secure_prompts(rows)).requests == 12
        got = generate_secure(rows, sender)
        again = generate_secure(rows, SecureSender(settings, cache, "rows", expected_tokens(rows)))
        created = batches.created
        assert SecureSender(settings, cache, "rows", 1.0).estimate(secure_prompts(rows)).requests == 0
    assert [p.secure for p in got.pairs] == [task.secure for task in tasks]
    assert again == got
    assert created == 3  # all; the expired one; the one that was turned down
    assert set(batches.paid.values()) == {1}
    write_pairs(got.pairs, tmp_path / "out.jsonl")
    assert load_code_pairs(tmp_path / "out.jsonl") == list(got.pairs)


def test_the_cap_is_said_before_anything_is_sent(tmp_path: Path) -> None:
    pytest.importorskip("inspect_ai")
    settings = secure_settings("openai/gpt-4o", dollars=0.001).model_copy(update={"key_env": "PLANTED_KEY"})
    (tmp_path / ".env").write_text("PLANTED_KEY=k\n")
    sender = SecureSender(settings, None, "rows", 500.0, folder=tmp_path)
    with pytest.raises(JudgeError, match="cap of"):
        sender.estimate(secure_prompts(ROWS))
