"""The tokenizer that a GGUF describes: byte-level BPE, rebuilt from its tokens, merges and named way of splitting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Core
from transformers import PreTrainedTokenizerFast

from bystander.core.errors import ModelError
from bystander.lm.tokens import Tokenizer, encode, template_of

CONTROL, USER_DEFINED = 3, 4  # token types of llama.cpp
_LETTERS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"


@dataclass(frozen=True, slots=True)
class Splitting:
    """How text is cut before merges: by `regex`, or as GPT-2 does (`digits`: and each digit by itself); `nfc`: after
    Unicode's composition; `whole_words`: a piece that is in the vocabulary stays whole whatever the merges say."""

    regex: str = ""
    digits: bool = False
    nfc: bool = False
    whole_words: bool = False


# `tokenizer.ggml.pre` -> what the published tokenizers of that name do.
SPLITTINGS = {
    "smollm": Splitting(digits=True),
    "gpt-2": Splitting(),
    "qwen2": Splitting(rf"{_SHORT}|{_LETTERS}|\p{{N}}|{_REST}", nfc=True),
    "llama-bpe": Splitting(rf"{_SHORT}|{_LETTERS}|\p{{N}}{{1,3}}|{_REST}", whole_words=True),
}


def tokenizer_of(fields: Mapping[str, Any]) -> PreTrainedTokenizerFast:
    """The tokenizer in a GGUF's fields. Raises ModelError for one that cannot be rebuilt exactly."""
    kind, name = fields.get("tokenizer.ggml.model"), str(fields.get("tokenizer.ggml.pre", ""))
    if kind != "gpt2" or name not in SPLITTINGS:
        raise ModelError(
            f"its tokenizer is {kind!r} with the pre-tokenizer {name!r}, which bystander does not rebuild from a GGUF: "
            f"known are gpt2 with {', '.join(SPLITTINGS)}. Use the model's ordinary checkpoint."
        )
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    splitting = SPLITTINGS[name]
    merges = [cast("tuple[str, str]", tuple(merge.split(" "))) for merge in fields["tokenizer.ggml.merges"]]
    inner = Core(
        models.BPE(
            vocab={token: i for i, token in enumerate(tokens)}, merges=merges, continuing_subword_prefix="",
            end_of_word_suffix="", fuse_unk=False, ignore_merges=splitting.whole_words,
        )
    )  # fmt: skip
    if splitting.nfc:
        inner.normalizer = normalizers.NFC()
    inner.pre_tokenizer = _pre_tokenizer(splitting)
    inner.decoder = decoders.ByteLevel()
    inner.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B:1", special_tokens=[])
    types: Sequence[int] = fields.get("tokenizer.ggml.token_type", [])
    for token, kind_of_token in zip(tokens, types, strict=False):
        if kind_of_token == CONTROL:
            inner.add_special_tokens([AddedToken(token, normalized=False, special=True)])
        elif kind_of_token == USER_DEFINED:
            inner.add_tokens([AddedToken(token, normalized=False, special=False)])
    if inner.get_vocab_size() != len(tokens):
        raise ModelError("its tokens are not distinct, or its control tokens are not among them: the file is damaged.")
    return _with_roles(inner, tokens, fields)


def _pre_tokenizer(splitting: Splitting) -> pre_tokenizers.PreTokenizer:
    if splitting.regex:
        split = pre_tokenizers.Split(Regex(splitting.regex), behavior="isolated")
        return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return (
        pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), level]) if splitting.digits else level
    )


def _with_roles(inner: Core, tokens: Sequence[str], fields: Mapping[str, Any]) -> PreTrainedTokenizerFast:
    def named(role: str) -> str | None:
        number = fields.get(f"tokenizer.ggml.{role}_token_id")
        return None if number is None else tokens[int(number)]

    end = named("eos")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token=named("bos"), eos_token=end, unk_token=named("unknown"),
        pad_token=named("padding") or end,
    )  # fmt: skip
    tokenizer.chat_template = fields.get("tokenizer.chat_template")
    if tokenizer.chat_template:
        turn = end_of_turn(tokenizer)
        if turn is not None:  # some files name the token that ends a document
            tokenizer.eos_token = turn
    return tokenizer


def end_of_turn(tokenizer: PreTrainedTokenizerFast) -> str | None:
    """The control token with which the chat template ends an answer, if it does so with one."""
    ours = cast(Tokenizer, tokenizer)  # transformers sets some of its attributes where no type checker sees it
    after = encode(ours, [template_of(ours).answer_end])[0][:1]
    return next((str(tokenizer.added_tokens_decoder[i]) for i in after if i in tokenizer.added_tokens_decoder), None)
