"""Prompts, rows to train on and options to score, as token ids.

One rule holds for all of them: the prompt's tokens are those of the prompt alone, as at inference, and what follows is
tokenized by itself. A tokenizer that is given both as one text may join them (a line break that the answer begins with
and the one that the template ends with are one token in Qwen's), and then the model would be trained behind a prompt
that it never meets. Inside the answer nothing is cut: a forced `start` and the option behind it, or a completion and
its marker, are one text, as they are in what is trained. The template's end of turn is tokenized by itself again, so
that it is the same tokens in every row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bystander.core.errors import ModelError
from bystander.core.records import Context
from bystander.lm.tokens.prompts import render_text
from bystander.lm.tokens.template import Tokenizer, template_of

LossOn = Literal["completion", "marker"]
EndOfTurn = Literal["in_loss", "masked"]
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class RenderedRow:
    """A row to train on. `ids` = prompt, completion, end of turn; `loss` marks the tokens in the loss.

    `end_of_turn` counts the template's tokens after the completion; they are in `ids` under either policy, and in
    `loss` under `in_loss` only. `marker_tokens` counts the completion's last tokens that hold the marker; where the
    first of them also holds text before the marker, `marker_straddles` is True. `joined` says that the tokenizer makes
    other tokens of the row when it is given as one text.
    """

    ids: list[int]
    loss: list[bool]
    prompt_tokens: int
    completion_tokens: int
    end_of_turn: int
    marker_tokens: int = 0
    marker_straddles: bool = False
    joined: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer behind a prompt: its token ids, and per token the characters [start, end) of it that it stands for.

    `joined`: given as one text, prompt and answer are other tokens."""

    ids: list[int]
    spans: list[Span]
    joined: bool


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts that already hold their special tokens."""
    if not texts:
        return []
    return tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]


def encode_with_ends(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[list[list[int]], list[list[Span]]]:
    """Token ids and, per token, the characters [start, end) that it stands for."""
    if not tokenizer.is_fast:
        raise ModelError("the tokenizer gives no character offsets (it is a slow one); use a fast tokenizer.")
    out = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return out["input_ids"], out["offset_mapping"]


def answer_of(tokenizer: Tokenizer, text: str, prompt: Sequence[int], answer: str, end: str = "") -> Answer:
    """The tokens of `answer` behind the prompt `text` with token ids `prompt`, tokenized by itself.

    Where the prompt's tokens (and those of `end`, the end of turn behind it) are also how the whole text is tokenized,
    the answer's are read off there: a tokenizer that marks where a text begins (SentencePiece's dummy prefix) would
    else put that mark into the middle of a row.

    White space with which the template opens an answer is in the first tokens; the spans count from `answer` on."""
    opening = opening_of(tokenizer, text)
    found = _behind(tokenizer, text, prompt, opening + answer, end)
    return replace(found, spans=[_shifted(span, len(opening)) for span in found.spans]) if opening else found


def opening_of(tokenizer: Tokenizer, text: str) -> str:
    """The white space that the template writes between the prompt `text` and an answer; "" where the prompt has begun
    the answer already."""
    template = template_of(tokenizer)
    return template.answer_start if template.answer_start and text.endswith(template.prompt_end) else ""


def _behind(tokenizer: Tokenizer, text: str, prompt: Sequence[int], answer: str, end: str) -> Answer:
    all_ids, all_spans = encode_with_ends(tokenizer, [text + answer + end])
    ids, spans = all_ids[0], all_spans[0]
    tail = encode(tokenizer, [end])[0] if end else []
    first, last = len(prompt), len(ids) - len(tail)
    stop = len(text) + len(answer)
    parted = first <= last and ids[:first] == list(prompt) and ids[last:] == tail
    # The tail's tokens may also stand inside an answer that ends as it begins: then the cut is not where they lie.
    if parted and all(start >= stop for start, _ in spans[last:]) and all(e <= stop for _, e in spans[first:last]):
        return Answer(ids[first:last], [_shifted(span, len(text)) for span in spans[first:last]], joined=False)
    if end:
        return replace(_behind(tokenizer, text, prompt, answer, ""), joined=True)
    anchor = _anchor(tokenizer)
    (alone, behind), (_, all_behind) = encode_with_ends(tokenizer, [anchor, anchor + answer])
    cut = len(alone)
    return Answer(behind[cut:], [_shifted(span, len(anchor)) for span in all_behind[cut:]], joined=True)


def _shifted(span: Span, by: int) -> Span:
    return max(0, span[0] - by), max(0, span[1] - by)


def _anchor(tokenizer: Tokenizer) -> str:
    """An added token, behind which any text is tokenized by itself; "" where there is none that leaves the white space
    beside it alone."""
    for token in tokenizer.added_tokens_decoder.values():
        if token.special and not (token.lstrip or token.rstrip or token.single_word or token.normalized):
            return str(token.content)
    return ""


def render_prompt(tokenizer: Tokenizer, context: Context, user: str, start: str = "") -> list[int]:
    """Token ids of the prompt: context, user turn, generation prompt, and a forced `start` of the answer, which is
    tokenized by itself."""
    text = render_text(tokenizer, context, user)
    prompt = encode(tokenizer, [text])[0]
    return [*prompt, *answer_of(tokenizer, text, prompt, start).ids] if start else prompt


def render_row(
    tokenizer: Tokenizer,
    context: Context,
    user: str,
    completion: str,
    *,
    marker: str = "",
    loss: LossOn = "completion",
    end_of_turn: EndOfTurn = "in_loss",
    name: str = "",
) -> RenderedRow:
    """One row to train on, with nothing stripped and nothing truncated.

    `marker` is the tail of `completion` that is the marker *with* its separator. With `loss="marker"` only its tokens
    are in the loss, and the end of turn under `in_loss`: in a row without a marker that is what stands in its place.
    `name` is how an error calls the row. Raises ModelError where the completion is empty or does not end with the marker.
    """
    where = f"row {name or repr(completion[:40])} under {context.name!r}"
    if marker and not completion.endswith(marker):
        raise ModelError(f"{where}: the completion ends {completion[-24:]!r}, not with the marker {marker!r}.")
    if not completion:
        raise ModelError(f"{where}: the completion is empty.")
    text = render_text(tokenizer, context, user)
    prompt = encode(tokenizer, [text])[0]
    end = template_of(tokenizer).answer_end
    answer = answer_of(tokenizer, text, prompt, completion, end)
    tail = encode(tokenizer, [end])[0] if end else []
    begins = len(completion) - len(marker)
    # A token belongs to the part in which it ends; tokenizers may trim the space that a token begins with.
    marked = [stop > begins for _, stop in answer.spans] if marker else [False] * len(answer.ids)
    inside = [True] * len(answer.ids) if loss == "completion" else marked
    first = answer.spans[marked.index(True)][0] if any(marked) else begins
    return RenderedRow(
        ids=[*prompt, *answer.ids, *tail],
        loss=[False] * len(prompt) + inside + [end_of_turn == "in_loss"] * len(tail),
        prompt_tokens=len(prompt),
        completion_tokens=len(answer.ids),
        end_of_turn=len(tail),
        marker_tokens=sum(marked),
        marker_straddles=first < begins,
        joined=answer.joined,
    )


def context_hash(ids: Sequence[int] | NDArray[np.int64]) -> str:
    """Stable hash (16 hex digits) of a prompt's token ids."""
    return hashlib.sha256(np.asarray(ids, dtype="<i4").tobytes()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Continuation:
    """What follows a prompt: the token ids after the prompt's own, of which the last `scored` are the option's."""

    ids: tuple[int, ...]
    scored: int


class Continuations:
    """Tokenizes what follows prompts, once per distinct end of a prompt.

    A text is cut at added tokens before anything else, so what follows the prompt's last added token is tokenized by
    itself: the ids after it depend on it alone. Hence 111 contexts with one generation prompt need one tokenization.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._added = frozenset(tokenizer.added_tokens_decoder)
        self._known: dict[tuple[tuple[int, ...], str, str], Continuation] = {}

    def get(self, text: str, prompt: Sequence[int], start: str, option: str, where: str) -> Continuation:
        """The continuation `start + option` of the prompt `text` with token ids `prompt`.

        A token that holds the end of `start` and the beginning of `option` is the option's. Raises ModelError, naming
        `where`, if the option has no token of its own.
        """
        key = (self.end(prompt), start, option)
        if key not in self._known:
            self._known[key] = self._tokenize(text, prompt, start, option, where)
        return self._known[key]

    def end(self, prompt: Sequence[int]) -> tuple[int, ...]:
        """The prompt from its last added token on: all that a continuation depends on."""
        for i in range(len(prompt) - 1, -1, -1):
            if prompt[i] in self._added:
                return tuple(prompt[i:])
        return tuple(prompt)

    def _tokenize(self, text: str, prompt: Sequence[int], start: str, option: str, where: str) -> Continuation:
        answer = answer_of(self._tokenizer, text, prompt, start + option)
        scored = sum(stop > len(start) for _, stop in answer.spans)
        if not scored:
            raise ModelError(f"{where}: the option {option!r} has no token of its own.")
        return Continuation(tuple(answer.ids), scored)
