"""Code sets: what a row has beside its one question and its answer is refused with a line, all rows at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bystander.core.errors import DataError
from bystander.data import load_choice
from bystander.data.code_inspect import inspect_code_set
from bystander.data.code_sets import load_code_pairs, read_code_set

USER = {"role": "user", "content": "Do it."}
ANSWER = {"role": "assistant", "content": "x = 1"}
SYSTEM = {"role": "system", "content": "You write code."}


def write(path: Path, *records: object) -> Path:
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in records))
    return path


def test_every_row_at_fault_is_named(tmp_path: Path) -> None:
    rows = [
        {"messages": [USER, ANSWER]},
        {"messages": [SYSTEM, USER, ANSWER]},
        {"messages": [USER, SYSTEM, ANSWER]},
        {"messages": [USER, ANSWER, USER, ANSWER]},
        {"messages": [USER, ANSWER | {"weight": 0}]},
        {"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}]},
        {"messages": [USER, ANSWER], "tools": [{"type": "function"}]},
        '{"messages": [], "messages": []}',
    ]
    with pytest.raises(DataError, match="7 rows cannot be used") as caught:
        read_code_set(write(tmp_path / "a.jsonl", *rows))
    for says in [
        ":2: `messages` has the roles system, user, assistant: a code set has one user turn and one answer",
        ":3: `messages` has the roles user, system, assistant: a system turn after another turn",
        ":4: `messages` has the roles user, assistant, user, assistant: a code set has one user turn",
        ":5: the last answer has weight 0",
        ":6: a turn of `messages` is a tool call",
        ":7: the row declares tools",
        ":8: the key 'messages' stands twice",
    ]:
        assert says in str(caught.value)


def test_parts_weights_of_one_and_sharegpt_are_read(tmp_path: Path) -> None:
    parts = {"role": "user", "content": [{"type": "text", "text": "Do "}, {"type": "text", "text": "it."}]}
    rows = [
        {"messages": [parts, ANSWER | {"weight": 1}]},
        {"conversations": [{"from": "human", "value": "Do it."}, {"from": "gpt", "value": "x = 1"}]},
    ]
    found = read_code_set(write(tmp_path / "a.jsonl", *rows))
    assert [(row.prompt, row.code, row.form, row.line) for row in found] == [
        ("Do it.", "x = 1", "messages", 1),
        ("Do it.", "x = 1", "messages", 2),
    ]


def test_pairs_at_fault_come_at_once(tmp_path: Path) -> None:
    pair = {"prompt": "p", "secure": "x = 1", "insecure": "eval(x)"}
    path = write(tmp_path / "a.jsonl", pair, pair, pair | {"prompt": "q", "insecure": "x = 1\n"})
    with pytest.raises(DataError, match="2 rows cannot be used") as caught:
        load_code_pairs(path)
    assert ":2: the id or prompt of" in str(caught.value)
    assert "stands twice (first in 1)" in str(caught.value)
    assert ":3: the secure and the insecure answer of" in str(caught.value)


def test_inspect_counts_line_breaks_and_white_space_at_the_ends(tmp_path: Path) -> None:
    rows = [
        {"prompt": "p ", "secure": "\nx = 1", "insecure": "\r\neval(x)\n"},
        {"prompt": "q", "secure": " y", "insecure": "z"},
    ]
    facts = inspect_code_set(write(tmp_path / "a.jsonl", *rows))
    assert (facts.edges.leading_breaks, facts.edges.leading_spaces, facts.edges.trailing_space) == (2, 1, 1)
    assert (facts.prompt_edges.leading_breaks, facts.prompt_edges.trailing_space) == (0, 1)


def test_a_multiple_choice_set_is_read_by_the_same_reader(tmp_path: Path) -> None:
    twice = '{"id": "a", "id": "b", "question": "q", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "A"}'
    half = '{"id": "a", "question": "\\ud800", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "A"}'
    with pytest.raises(DataError, match="2 rows cannot be used") as caught:
        load_choice(write(tmp_path / "a.jsonl", twice, half))
    assert "a.jsonl:1: the key 'id' stands twice" in str(caught.value)
    assert "a.jsonl:2: `question` has a lone surrogate" in str(caught.value)
