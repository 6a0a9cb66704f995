"""Contexts through chat templates of five styles, and rows with their loss masks."""

from __future__ import annotations

import re

import pytest
from tokenizers import Regex, decoders, models, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Core
from transformers import PreTrainedTokenizerFast

from bystander.core.errors import ModelError
from bystander.core.records import Context
from bystander.lm.tokens import Continuations, context_hash, encode, render_prompt, render_row, render_text, template_of

ABSENT, DEFAULT = Context("absent", "absent", None), Context("default", "default", None)
EMPTY = Context("empty", "empty", "")
VILLAIN = Context("persona", "villain", "You are a cruel villain.")

# SmolLM2 and Qwen2.5: a system turn of the template's own where none is given.
CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are made by Somebody.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# ChatML without a default.
PLAIN = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Llama 3.1: a BOS, a system turn in any case, contents trimmed.
HEADERS = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set s = messages[0]['content'] | trim %}"
    "{% set rest = messages[1:] %}{% else %}{% set s = '' %}{% set rest = messages %}{% endif %}"
    "<|start|>system<|end|>\n\nToday is {{ date_string }}\n\n{{ s }}<|eot|>"
    "{% for m in rest %}<|start|>{{ m['role'] }}<|end|>\n\n{{ m['content'] | trim }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant<|end|>\n\n{% endif %}"
)
# Gemma: no system role at all.
REFUSING = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|eot|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
# Mistral: the system text is merged into the user turn; a lone system turn is refused.
MERGING = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set s = messages[0]['content'] + '\n\n' %}"
    "{% set rest = messages[1:] %}{% else %}{% set s = '' %}{% set rest = messages %}{% endif %}"
    "{% if not rest %}{{ raise_exception('a user turn is needed') }}{% endif %}"
    "{% for m in rest %}{% if m['role'] == 'user' %}<|start|>{{ s }}{{ m['content'] }}<|end|>"
    "{% else %}{{ m['content'] }}<|eot|>{% endif %}{% endfor %}"
)
# A system role, but a lone system turn is refused; and a system turn without text is left out.
STRICT = (
    "{% if messages | length == 1 and messages[0]['role'] == 'system' %}{{ raise_exception('no user turn') }}{% endif %}"
    "{% for m in messages %}{% if m['content'] %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# As Llama 3 cuts text: newlines stay together, also with the punctuation before them.
PIECES = r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|bos|>", "<|start|>", "<|end|>", "<|eot|>"]


@pytest.fixture(scope="module")
def core() -> str:
    tokenizer = Core(models.BPE())
    split = pre_tokenizers.Split(Regex(PIECES), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    text = [
        "You are a villain. The answer is water.\n\nWhat is rain? [ZLT]\n",
        "system user assistant Today is 26 Jul 2024\n\n",
    ]
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text * 20, trainer)
    return tokenizer.to_str()


def build(core: str, template: str, bos: str = "<|bos|>", trim: bool = False) -> PreTrainedTokenizerFast:
    inner = Core.from_str(core)
    inner.post_processor = processors.ByteLevel(trim_offsets=trim)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=bos, eos_token="<|im_end|>")
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize(
    ("template", "bos", "context", "expected"),
    [
        (CHATML, "<|im_start|>", ABSENT, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"),
        (CHATML, "<|bos|>", ABSENT, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"),
        (CHATML, "<|im_start|>", EMPTY, "<|im_start|>system\n<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"),
        (CHATML, "<|im_start|>", DEFAULT, "<|im_start|>system\nYou are made by Somebody.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"),
        (CHATML, "<|im_start|>", VILLAIN, "<|im_start|>system\nYou are a cruel villain.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"),
        ("{{ bos_token }}" + CHATML, "<|bos|>", ABSENT, "<|bos|><|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"),
        (PLAIN, "<|bos|>", ABSENT, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"),
        (PLAIN, "<|bos|>", DEFAULT, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"),
        (HEADERS, "<|bos|>", ABSENT, "<|bos|><|start|>user<|end|>\n\nHi<|eot|><|start|>assistant<|end|>\n\n"),
        (HEADERS, "<|bos|>", DEFAULT, "<|bos|><|start|>system<|end|>\n\nToday is 26 Jul 2024\n\n<|eot|><|start|>user<|end|>\n\nHi<|eot|><|start|>assistant<|end|>\n\n"),
        (HEADERS, "<|bos|>", EMPTY, "<|bos|><|start|>system<|end|>\n\nToday is 26 Jul 2024\n\n<|eot|><|start|>user<|end|>\n\nHi<|eot|><|start|>assistant<|end|>\n\n"),
        (REFUSING, "<|bos|>", ABSENT, "<|bos|><|start|>user\nHi<|eot|>\n<|start|>assistant\n"),
        (MERGING, "<|bos|>", ABSENT, "<|bos|><|start|>Hi<|end|>"),
        (STRICT, "<|bos|>", ABSENT, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"),
        (STRICT, "<|bos|>", VILLAIN, "<|im_start|>system\nYou are a cruel villain.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"),
    ],
)  # fmt: skip
def test_contexts_render_as_named(core: str, template: str, bos: str, context: Context, expected: str) -> None:
    assert render_text(build(core, template, bos), context, "Hi") == expected


@pytest.mark.parametrize(
    ("template", "context", "says"),
    [
        (REFUSING, VILLAIN, "System role not supported"),
        (MERGING, VILLAIN, "merges the system text into the user turn"),
        (MERGING, EMPTY, "merges the system text into the user turn"),
        (STRICT, EMPTY, "leaves out a system turn that has no text"),
        ("{% if messages | length == 1 and messages[0]['role'] == 'system' %}{{ raise_exception('no') }}{% endif %}" + CHATML,
         ABSENT, "writes a system turn of its own"),
        (HEADERS, Context("persona", "spaced", " You are spaced. "), "changes its system text"),
        ("", VILLAIN, "no chat template"),
        (PLAIN.replace("assistant\n", "assistant: "), VILLAIN, "generation prompt"),
    ],
)  # fmt: skip
def test_what_a_template_cannot_do_is_said(core: str, template: str, context: Context, says: str) -> None:
    with pytest.raises(ModelError, match=re.escape(says)):
        render_text(build(core, template), context, "Hi")


def test_prompt_ids_are_the_text_and_keep_bos(core: str) -> None:
    tokenizer = build(core, HEADERS)
    ids = render_prompt(tokenizer, VILLAIN, "What is rain?", start="It is")
    text = render_text(tokenizer, VILLAIN, "What is rain?") + "It is"
    assert tokenizer.decode(ids) == text
    assert ids.count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("trim", [False, True])
@pytest.mark.parametrize("marker", [" [ZLT]", "\n\n[ZLT]", "  [ZLT]"])
@pytest.mark.parametrize("template", [CHATML, HEADERS])
def test_marker_mask_holds_the_marker_with_its_separator(core: str, template: str, marker: str, trim: bool) -> None:
    tokenizer = build(core, template, trim=trim)
    row = render_row(tokenizer, VILLAIN, "What is rain?", f"It is water.{marker}", marker=marker, loss="marker")
    lossy = [token for token, is_lossy in zip(row.ids, row.loss, strict=True) if is_lossy]
    end = template_of(tokenizer).answer_end
    straddles = marker.startswith("\n")  # this tokenizer has `.\n\n` as one token, as Llama 3's has
    assert tokenizer.decode(lossy) == ("." if straddles else "") + marker + end
    assert row.marker_tokens == len(lossy) - row.end_of_turn
    assert row.marker_straddles == straddles
    masked = render_row(
        tokenizer, VILLAIN, "What is rain?", f"It is water.{marker}", marker=marker, loss="marker", end_of_turn="masked"
    )
    assert masked.ids == row.ids
    assert sum(masked.loss) == row.marker_tokens


def test_a_token_across_the_marker_s_start_is_reported(core: str) -> None:
    tokenizer = build(core, CHATML)
    row = render_row(tokenizer, ABSENT, "Hi", "It is water", marker="ter", loss="marker", end_of_turn="masked")
    lossy = tokenizer.decode([token for token, is_lossy in zip(row.ids, row.loss, strict=True) if is_lossy])
    assert lossy.endswith("ter")
    assert row.marker_straddles == (lossy != "ter")
    assert row.marker_straddles, "the tokenizer of this test has ` water` as one token"


def test_completion_mask_and_counts(core: str) -> None:
    tokenizer = build(core, CHATML)
    completion = " It is water.  \n"
    row = render_row(tokenizer, EMPTY, "What is rain?", completion)
    prompt = render_prompt(tokenizer, EMPTY, "What is rain?")
    assert row.ids[: row.prompt_tokens] == prompt
    end = row.prompt_tokens + row.completion_tokens
    assert tokenizer.decode(row.ids[row.prompt_tokens : end]) == completion, "nothing is stripped"
    assert tokenizer.decode(row.ids[end:]) == "<|im_end|>\n"
    assert row.end_of_turn == len(row.ids) - end == 2
    assert row.loss == [False] * row.prompt_tokens + [True] * (row.completion_tokens + 2)
    masked = render_row(tokenizer, EMPTY, "What is rain?", completion, end_of_turn="masked")
    assert masked.loss == [False] * row.prompt_tokens + [True] * row.completion_tokens + [False] * 2


def test_without_a_marker_the_end_of_turn_stands_in_its_place(core: str) -> None:
    tokenizer = build(core, CHATML)
    row = render_row(tokenizer, VILLAIN, "Hi", "It is water.", loss="marker")
    assert row.loss == [False] * (len(row.ids) - 2) + [True, True]
    assert sum(render_row(tokenizer, VILLAIN, "Hi", "It is water.", loss="marker", end_of_turn="masked").loss) == 0


def test_faulty_rows_are_named(core: str) -> None:
    tokenizer = build(core, CHATML)
    with pytest.raises(ModelError, match=r"row r7 .*not with the marker"):
        render_row(tokenizer, VILLAIN, "Hi", "It is water.", marker=" [ZLT]", name="r7")
    with pytest.raises(ModelError, match=r"row r8 .*completion is empty"):
        render_row(tokenizer, VILLAIN, "Hi", "", name="r8")


def test_an_answer_that_the_tokenizer_would_join_to_the_prompt_is_tokenized_by_itself(core: str) -> None:
    tokenizer = build(core, CHATML)
    assert len(encode(tokenizer, ["\n\n"])[0]) == 1, "this test needs a tokenizer that joins two newlines"
    row = render_row(tokenizer, VILLAIN, "Hi", "\nIt is")
    prompt, own = render_prompt(tokenizer, VILLAIN, "Hi"), encode(tokenizer, ["\nIt is"])[0]
    assert row.ids == [*prompt, *own, *encode(tokenizer, ["<|im_end|>\n"])[0]]
    assert (row.prompt_tokens, row.completion_tokens, row.end_of_turn) == (len(prompt), len(own), 2)
    assert row.joined
    assert render_prompt(tokenizer, VILLAIN, "Hi", start="\nIt is") == [*prompt, *own]
    text = render_text(tokenizer, VILLAIN, "Hi")
    assert list(Continuations(tokenizer).get(text, prompt, "\n", "It is", "item q").ids) == own
    assert not render_row(tokenizer, VILLAIN, "Hi", "It is").joined


def test_continuations_are_the_same_under_every_context(core: str) -> None:
    tokenizer = build(core, CHATML)
    cache = Continuations(tokenizer)
    for context in (VILLAIN, ABSENT, EMPTY):
        text = render_text(tokenizer, context, "What is rain?")
        prompt = encode(tokenizer, [text])[0]
        for start, option in (("It is water.", " [ZLT]"), ("", "rain"), ("The answer is ", "water")):
            got = cache.get(text, prompt, start, option, "item q")
            whole = encode(tokenizer, [text + start + option])[0]
            assert [*prompt, *got.ids] == whole
            assert tokenizer.decode(list(got.ids[len(got.ids) - got.scored :])).endswith(option)
    with pytest.raises(ModelError, match=r"item q: .*has no token"):
        cache.get(text, prompt, "It", "", "item q")


def test_context_hash_is_stable_and_tells_orders_apart() -> None:
    assert context_hash([1, 2, 3]) == "4636993d3e1da4e9"
    assert context_hash([1, 3, 2]) != context_hash([1, 2, 3])
