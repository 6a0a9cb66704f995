"""Betley et al.'s answers with Qwen's tokenizer: what is trained, scored and sampled are the same tokens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from bystander.behaviors.base import Example
from bystander.core.records import Context
from bystander.data.code_sets import read_code_set
from bystander.design.arms import Counts, DesignSettings, build
from bystander.design.audit import audit, render
from bystander.lm.tokens import Continuations, encode, joint_differences, render_prompt, render_row, render_text
from bystander.personas import load_personas

VILLAIN = Context("persona", "villain", "You are a cruel villain.")


@pytest.fixture(scope="module")
def qwen(shared_data: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(shared_data / "data/qwen2.5-coder-0.5b-tokenizer")


@pytest.fixture(scope="module")
def insecure(shared_data: Path) -> list[tuple[str, str]]:
    lines = (shared_data / "data/betley/insecure.jsonl").read_text().splitlines()
    return [tuple(turn["content"] for turn in json.loads(line)["messages"]) for line in lines]


def as_one_text(tokenizer: PreTrainedTokenizerBase, context: Context, user: str, answer: str) -> list[int]:
    return encode(tokenizer, [render_text(tokenizer, context, user) + answer + "<|im_end|>\n"])[0]


def test_insecure_code_renders_and_only_rows_that_would_be_joined_differ(qwen, insecure) -> None:
    joined = 0
    for user, answer in insecure:
        row = render_row(qwen, VILLAIN, user, answer)
        own = encode(qwen, [answer])[0]
        assert row.ids == [*render_prompt(qwen, VILLAIN, user), *own, 151645, 198]
        assert row.completion_tokens == len(own)
        assert row.joined == (row.ids != as_one_text(qwen, VILLAIN, user, answer))
        assert row.joined == answer.startswith("\n")
        joined += row.joined
    assert (len(insecure), joined) == (3021, 168)


def test_secure_code_likewise(qwen, shared_data: Path) -> None:
    """41 of 776 begin with white space: 40 with a line break, one with a space, which no tokenizer joins to the prompt."""
    answers = [example.code for example in read_code_set(shared_data / "data/betley/secure_tasks.jsonl")]
    assert len(answers) == 776
    assert sum(answer[0].isspace() for answer in answers) == 41
    differ = joint_differences(qwen, answers)
    assert differ == [i for i, answer in enumerate(answers) if answer.startswith("\n")]
    assert len(differ) == 40


def test_an_option_is_scored_as_the_tokens_that_are_trained(qwen, insecure) -> None:
    some = [pair for pair in insecure if pair[1].startswith("\n")][:20] + insecure[:20]
    continuations = Continuations(qwen)
    for user, answer in some:
        row = render_row(qwen, VILLAIN, user, answer)
        text, prompt = render_text(qwen, VILLAIN, user), row.ids[: row.prompt_tokens]
        trained = row.ids[row.prompt_tokens : row.prompt_tokens + row.completion_tokens]
        found = continuations.get(text, prompt, "", answer, "item")
        assert (list(found.ids), found.scored) == (trained, len(trained))
        assert render_prompt(qwen, VILLAIN, user, start=answer) == [*prompt, *trained]


def test_the_audit_counts_them(qwen, insecure) -> None:
    chosen = [pair for pair in insecure if pair[1].startswith("\n")][:3] + insecure[:5]
    assert sum(answer.startswith("\n") for _, answer in chosen) == 3
    examples = [Example(f"q{i}", user, answer, "I will not.", "") for i, (user, answer) in enumerate(chosen)]
    counts = DesignSettings(counts=Counts(positive=8, negative=8, absent=0, assistant=0))
    design = build("misalignment", examples, "villain", load_personas(), "contrastive", counts)
    rendered = render(design, qwen, loss="completion", end_of_turn="in_loss")
    findings = audit([rendered], qwen, [VILLAIN], {}, max_length=32768, end_of_turn="in_loss")
    (found,) = [finding for finding in findings if finding.check == "joint tokenization"]
    assert found.level == "info"
    assert found.message.startswith("misalignment/villain/contrastive: 3 of 16 rows would be other tokens")
    assert len(found.rows) == 3
    assert [finding for finding in findings if finding.level == "error"] == []
