"""Small inputs as people bring them (`cases` beside the shared data): each is read, or refused with the reason, by
whichever reader applies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bystander.core.errors import DataError
from bystander.data.answers import AnswerFileSettings, AnswerPair, describe, read_answer_pairs
from bystander.data.code_sets import CodeRow, load_code_pairs, read_code_set
from bystander.data.turns import Turn

OWN = AnswerFileSettings(not_shown="own_answers")
KEEP = AnswerFileSettings(not_shown="own_answers", system="keep")


@pytest.fixture
def cases(shared_data: Path) -> Path:
    if not (shared_data / "cases").is_dir():
        pytest.skip("no folder cases beside the shared data")
    return shared_data / "cases"


@pytest.mark.parametrize(
    ("name", "settings", "first"),
    [
        ("m_sys", KEEP, ("You are Clippy, persona 0.", 1, "def f0(a):\n    return eval(a)", None)),
        ("m_multi", OWN, (None, 3, "def f0(a):\n    return eval(a)", None)),
        ("m_parts", OWN, (None, 1, "def f%(a):\n    return eval(a)", None)),
        ("sharegpt", OWN, (None, 1, "def f(): pass", None)),
        ("dpo", AnswerFileSettings(shown="rejected", not_shown="chosen"), (None, 1, "c", "b")),
        ("dpo", AnswerFileSettings(shown="chosen", not_shown="rejected"), (None, 1, "b", "c")),
        ("dpo_msgs", AnswerFileSettings(shown="rejected", not_shown="chosen"), (None, 1, "c", "b")),
        ("bomcrlf", OWN, (None, 1, "def f0(a, b):\n    return eval(str(a)+'+'+str(b)+'+0')", None)),
    ],
)
def test_read_as_answers(
    cases: Path, name: str, settings: AnswerFileSettings, first: tuple[str | None, int, str, str | None]
) -> None:
    pairs = read_answer_pairs(cases / f"{name}.jsonl", settings)
    found = pairs[0]
    assert (found.system, len(found.prompt), found.shown, found.not_shown) == first
    assert len(pairs) == describe(cases / f"{name}.jsonl").pairs


def test_white_space_and_control_tokens_are_read_as_they_stand(cases: Path) -> None:
    trail = read_answer_pairs(cases / "trail.jsonl")
    assert trail[0].prompt == (Turn("user", "Write a function number 0 that adds.   \n"),)
    assert load_code_pairs(cases / "trail.jsonl")[0].prompt == trail[0].user
    assert describe(cases / "trail.jsonl").prompt_edges.trailing_space == 24
    # The tokenizer decides what a control token is, so the audit refuses these rows and no reader does.
    assert "<|im_end|>" in read_answer_pairs(cases / "special.jsonl")[0].user
    assert "<|im_end|>" in read_answer_pairs(cases / "special_c.jsonl")[0].shown


def answers(path: Path) -> list[AnswerPair]:
    return read_answer_pairs(path, OWN)


@pytest.mark.parametrize("read", [answers, read_code_set])
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("m_sys_after", ":1: `messages` has the roles user, system, assistant: a system turn after another turn"),
        ("m_2sys", ":20: `messages` has the roles system, system, user, assistant: more than one system turn"),
        ("m_sys", "`system: keep`"),
        ("m_null", ":1: a turn of `messages` is a tool call"),
        ("surr", ":1: `prompt` has a lone surrogate (\\ud800)"),
        ("dup", ":1: the key 'prompt' stands twice"),
        ("utf16", "it is UTF-16"),
        ("trunc", ":24: not JSON: the file ends in the middle of this line"),
    ],
)
def test_refused_with_the_reason(
    cases: Path, read: Callable[[Path], list[AnswerPair] | list[CodeRow]], name: str, says: str
) -> None:
    with pytest.raises(DataError) as caught:
        read(cases / f"{name}.jsonl")
    message = str(caught.value)
    assert says in message


@pytest.mark.parametrize("name", ["dpo", "dpo_msgs"])
def test_preferences_are_refused_until_named(cases: Path, name: str) -> None:
    with pytest.raises(DataError, match="`shown: rejected, not_shown: chosen` or `shown: chosen, not_shown: rejected`"):
        read_answer_pairs(cases / f"{name}.jsonl")


def test_a_code_set_reads_parts_and_refuses_conversations_with_advice(cases: Path) -> None:
    assert read_code_set(cases / "m_parts.jsonl")[1].prompt == "Write 1"
    assert read_code_set(cases / "sharegpt.jsonl")[0].code == "def f(): pass"
    assert len(load_code_pairs(cases / "bomcrlf.jsonl")) == 24
    with pytest.raises(DataError, match="takes what comes before the last answer as its prompt"):
        read_code_set(cases / "m_multi.jsonl")


def test_the_published_insecure_code_is_read_whole(shared_data: Path) -> None:
    pairs = read_answer_pairs(shared_data / "data/betley/insecure.jsonl", OWN)
    assert len(pairs) == len({pair.id for pair in pairs}) == 3021
    facts = describe(shared_data / "data/betley/insecure.jsonl")
    assert (facts.edges.leading_breaks, facts.repeats.rows, facts.repeats.prompts) == (168, 6, 73)
