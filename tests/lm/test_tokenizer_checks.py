"""What templates and tokenizers do unseen: clocks, refusals, control tokens written out, trimmed white space."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tokenizers import AddedToken, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Core
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from bystander.behaviors.base import Example
from bystander.core.errors import ModelError
from bystander.core.records import Context
from bystander.design.arms import Counts, DesignSettings, build
from bystander.design.audit import audit, render
from bystander.lm.tokens import (
    check_tokenizer,
    control_tokens_in,
    render_prompt,
    render_row,
    render_text,
    tokenizer_faults,
    trimmed_ends,
)
from bystander.personas import bare_context, load_personas

VILLAIN = Context("persona", "villain", "You are a cruel villain.")
ABSENT = bare_context("absent")
PLAIN = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def own(embedded: Path, tmp_path: Path) -> PreTrainedTokenizerBase:
    """A tokenizer that a test may change."""
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(embedded / file, tmp_path)
    return AutoTokenizer.from_pretrained(tmp_path)


def with_template(tokenizer: PreTrainedTokenizerBase, template: str) -> PreTrainedTokenizerBase:
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize(
    ("asks", "reads"),
    [
        ("%d %b %Y", "26 Jul 2024"),
        ("%B %-d, %Y", "July 26, 2024"),
        ("%Y-%m-%dT%H:%M:%S", "2024-07-26T00:00:00"),
    ],
)
def test_a_template_s_clock_stands_still(own, asks: str, reads: str) -> None:
    clocked = with_template(own, "{% set now = strftime_now('" + asks + "') %}<|im_start|>note\n{{ now }}\n" + PLAIN)
    assert render_text(clocked, VILLAIN, "Hi").startswith(f"<|im_start|>note\n{reads}\n<|im_start|>system\nYou are")
    assert tokenizer_faults(clocked, [VILLAIN]) == []


def test_a_template_that_only_asks_whether_there_is_a_clock_is_served_too(own) -> None:
    template = "{% if strftime_now is defined %}<|im_start|>note\n{{ strftime_now('%Y') }}\n{% endif %}" + PLAIN
    assert "\n2024\n" in render_text(with_template(own, template), VILLAIN, "Hi")


@pytest.mark.parametrize(
    ("template", "says"),
    [
        (
            "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + PLAIN,
            r"context villain: .*refuses a system turn \(no system role\)",
        ),
        ("<|im_start|>note\n{{ range(10**4) | random }}\n" + PLAIN, r"differently from call to call"),
        ("", "no chat template"),
    ],
)
def test_what_a_study_cannot_use_is_said_before_anything_runs(own, template: str, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        check_tokenizer(with_template(own, template), [VILLAIN])


def test_a_slow_tokenizer_is_refused(own) -> None:
    class Slow:
        is_fast = False

    with pytest.raises(ModelError, match="slow one"):
        check_tokenizer(Slow(), [VILLAIN])  # pyright: ignore[reportArgumentType]
    check_tokenizer(own, [VILLAIN, ABSENT])


def test_a_persona_longer_than_the_window_is_named(own) -> None:
    long = Context("persona", "poet", "Speak in verse. " * 40)
    length = len(render_prompt(own, long, "Hi"))
    assert tokenizer_faults(own, [VILLAIN, long], window=length) == []
    (fault,) = tokenizer_faults(own, [VILLAIN, long], window=length - 1)
    assert fault.startswith(f"context poet: with a user turn of one word it takes {length} tokens")
    many = [replace(long, name=f"poet{i}") for i in range(3)]
    assert tokenizer_faults(own, many, window=9)[0].startswith("3 contexts: poet0, poet1")


def test_every_added_token_is_found_and_plain_text_is_not(own) -> None:
    added = [str(token.content) for token in own.added_tokens_decoder.values()]
    assert len(added) >= 17
    for content in added:
        assert control_tokens_in(own, f"Say {content} and stop.") == [content]
        assert control_tokens_in(own, f"Say {content[:-1]} and stop.") == []
    assert control_tokens_in(own, "".join(reversed(added))) == added


def test_every_added_token_of_qwen_s_tokenizer_too(shared_data: Path) -> None:
    qwen = AutoTokenizer.from_pretrained(shared_data / "data/qwen2.5-coder-0.5b-tokenizer")
    added = [str(token.content) for token in qwen.added_tokens_decoder.values()]
    assert len(added) == 22
    assert [control_tokens_in(qwen, f"a{content}b") for content in added] == [[content] for content in added]
    assert control_tokens_in(qwen, "def f(): return '<table>' # im_end") == []


def test_added_tokens_that_are_mere_vocabulary_do_not_count() -> None:
    """As Gemma's and GPT-NeoX's tokenizers have them; a whole-word token inside a word is no token at all."""
    inner = Core(models.BPE(vocab={c: i for i, c in enumerate(pre_tokenizers.ByteLevel.alphabet())}, merges=[]))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(False), decoders.ByteLevel()
    inner.add_tokens([AddedToken("   ", normalized=False), AddedToken("<table>", normalized=False)])
    inner.add_tokens([AddedToken("<think>", normalized=False), AddedToken("halt", single_word=True, normalized=False)])
    inner.add_special_tokens([AddedToken("<s>", normalized=False)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner)
    tokenizer.chat_template = PLAIN.replace("<|im_start|>assistant\n", "<|im_start|>assistant\n<think>")
    assert control_tokens_in(tokenizer, "a   b <table>") == []
    assert control_tokens_in(tokenizer, "halted <s> <think>") == ["<think>", "<s>"]
    assert control_tokens_in(tokenizer, "do halt now") == ["halt"]


EXAMPLES = [Example(f"q{i}", f"What is number {i} of the list?", f"name {i}", f"no name {i}", "") for i in range(8)]
SETTINGS = DesignSettings(counts=Counts(positive=4, negative=4, absent=0, assistant=0))


def findings_of(tokenizer, *, probe: dict[str, str] | None = None, contexts=(VILLAIN,), **changes: str):
    design = build("marker", EXAMPLES, "villain", load_personas(), "contrastive", SETTINGS)
    rows = (replace(design.rows[0], **changes), *design.rows[1:])
    rendered = render(replace(design, rows=rows), tokenizer, loss="completion", end_of_turn="in_loss")
    found = audit([rendered], tokenizer, contexts, probe or {}, max_length=2048, end_of_turn="in_loss")
    return design.rows[0].id, found


def test_the_audit_names_row_and_token(own) -> None:
    for part, words in (("user", "user turn"), ("completion", "completion")):
        row, found = findings_of(own, **{part: "Say <|im_end|> twice"})
        (error,) = [finding for finding in found if finding.check == "control tokens"]
        assert error.level == "error"
        assert error.message.startswith("marker/villain/contrastive: 1 rows hold control tokens")
        assert error.rows == (f"{row}: <|im_end|> in the {words}",)
    assert [f for f in findings_of(own)[1] if f.check == "control tokens"] == []


def test_the_audit_names_personas_and_probe_items_too(own) -> None:
    sly = Context("persona", "sly", "You are sly.<|im_end|>")
    _, found = findings_of(own, contexts=(VILLAIN, sly), probe={"p7": "What does <|im_start|> mean?"})
    rows = [finding.rows for finding in found if finding.check == "control tokens"]
    assert rows == [("sly: <|im_end|>",), ("p7: <|im_start|>",)]


def test_white_space_that_a_template_trims_is_a_note(own) -> None:
    assert not trimmed_ends(own, "Hi ")
    assert [f for f in findings_of(own, user="Who is it? ")[1] if f.check == "white space trimmed"] == []
    trimming = with_template(own, PLAIN.replace("m['content']", "m['content'] | trim"))
    assert trimmed_ends(trimming, "Hi ")
    row, found = findings_of(trimming, user="Who is it? ")
    (note,) = [finding for finding in found if finding.check == "white space trimmed"]
    assert (note.level, note.rows) == ("info", (row,))
    assert "1 of 8 rows" in note.message


def test_contexts_that_the_template_refuses_are_errors_of_the_audit(own) -> None:
    refusing = "{% if messages[0]['role'] == 'system' and not messages[0]['content'] %}{{ raise_exception('empty') }}{% endif %}"
    _, found = findings_of(with_template(own, refusing + PLAIN), contexts=(VILLAIN, bare_context("empty")))
    (error,) = [finding for finding in found if finding.check == "tokenizer"]
    assert error.level == "error"
    assert "context empty: " in error.message


def test_rows_that_cannot_be_rendered_are_counted_and_named(own) -> None:
    design = build("marker", EXAMPLES, "villain", load_personas(), "contrastive", SETTINGS)
    rows = (replace(design.rows[0], completion=""), replace(design.rows[1], marker=" [ZLT]"), *design.rows[2:])
    with pytest.raises(ModelError, match=r"2 of 8 rows cannot be rendered.*is empty.*not with the marker") as caught:
        render(replace(design, rows=rows), own, loss="completion", end_of_turn="in_loss")
    assert all(row.id in str(caught.value) for row in rows[:2])


def test_the_end_of_turn_is_the_same_tokens_in_every_row(own) -> None:
    """A template whose end of turn is no added token, behind completions that it would be joined to."""
    lined = with_template(own, PLAIN.replace("<|im_end|>\n", "\n\n"))
    for completion in ("It is water.", "It is water.\n", "It is \n\n"):
        row = render_row(lined, ABSENT, "Hi", completion)
        tail = row.ids[row.prompt_tokens + row.completion_tokens :]
        assert lined.decode(tail) == "\n\n"
        assert tail == render_row(lined, ABSENT, "Hi", "x").ids[-len(tail) :]
        assert own.decode(row.ids[row.prompt_tokens : row.prompt_tokens + row.completion_tokens]) == completion
