"""Contexts, prompts and rows as token ids, through the model's own chat template. No torch.

Templates differ in ways that have sunk studies: some put in a system turn of their own, some merge the system text
into the user turn, some trim. What a template does is found out once, with sentinels, and a context that cannot be
rendered as its name says is an error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from bystander.core.errors import ModelError
from bystander.core.records import Context, Message

LossOn = Literal["completion", "marker"]
EndOfTurn = Literal["in_loss", "masked"]

# What templates let a caller decide. Without these, Qwen3 opens a chain of thought before the answer, and Llama 3.2
# writes today's date into every prompt, so that no two days agree (the date is the default of Llama 3.1's template).
TEMPLATE_SETTINGS: dict[str, Any] = {"enable_thinking": False, "date_string": "26 Jul 2024"}
SYSTEM_SENTINEL = "Zqsystemqz"  # no template holds these, and none changes them by trimming or capitalizing
USER_SENTINEL = "Zquserqz"
ANSWER_SENTINEL = "Zqanswerqz"


class Tokenizer(Protocol):
    """What this module needs of a transformers tokenizer; `PreTrainedTokenizerFast` has it all."""

    @property
    def is_fast(self) -> bool: ...
    @property
    def added_tokens_decoder(self) -> Mapping[int, Any]: ...

    chat_template: Any
    bos_token: Any
    eos_token_id: Any

    def apply_chat_template(self, conversation: Any, **kwargs: Any) -> Any: ...
    def decode(self, token_ids: Any, **kwargs: Any) -> Any: ...
    def __call__(self, text: Any, **kwargs: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class RenderedRow:
    """A row to train on. `ids` = prompt, completion, end of turn; `loss` marks the tokens in the loss.

    `end_of_turn` counts the template's tokens after the completion; they are in `ids` under either policy, and in
    `loss` under `in_loss` only. `marker_tokens` counts the completion's last tokens that hold the marker; where the
    first of them also holds text before the marker, `marker_straddles` is True.
    """

    ids: list[int]
    loss: list[bool]
    prompt_tokens: int
    completion_tokens: int
    end_of_turn: int
    marker_tokens: int = 0
    marker_straddles: bool = False


@dataclass(frozen=True, slots=True)
class Template:
    """What a chat template does, found out with sentinels.

    `injected`: what it writes before the user turn when no system turn is given; `kept`: the part of that which is no
    turn (a BOS token); None where the two cannot be told apart, with the reason in `fault`. `system_fault` says why
    there is no system turn of its own, "" where there is one. `empty_fault` likewise for a system turn without text.
    `answer_end`: what it writes after an answer.
    """

    injected: str
    kept: str | None
    fault: str
    system_fault: str
    empty_fault: str
    answer_end: str


_templates: dict[tuple[str, str], Template] = {}


def template_of(tokenizer: Tokenizer) -> Template:
    """What the tokenizer's chat template does (remembered). Raises ModelError where there is none or it has no form
    that a prompt can be cut from."""
    if not tokenizer.chat_template:
        raise ModelError("the tokenizer has no chat template: this is no instruct model. Use one that has a template.")
    key = (repr(tokenizer.chat_template), str(tokenizer.bos_token))
    if key not in _templates:
        _templates[key] = _inspect(tokenizer)
    return _templates[key]


def _turn(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _apply(tokenizer: Tokenizer, messages: Sequence[Message], *, prompt: bool = True) -> str:
    text = tokenizer.apply_chat_template(
        list(messages), tokenize=False, add_generation_prompt=prompt, **TEMPLATE_SETTINGS
    )
    return str(text)


def _try(tokenizer: Tokenizer, messages: Sequence[Message], *, prompt: bool = True) -> tuple[str, str]:
    """The rendered text, or "" and what the template raised (templates refuse with an error of jinja's)."""
    try:
        return _apply(tokenizer, messages, prompt=prompt), ""
    except Exception as error:  # a template is a program of somebody else: it may raise anything
        return "", str(error) or type(error).__name__


def _inspect(tokenizer: Tokenizer) -> Template:
    user = _turn("user", USER_SENTINEL)
    bare, refused = _try(tokenizer, [user])
    if refused or USER_SENTINEL not in bare:
        raise ModelError(f"the chat template does not render a lone user turn ({refused or 'the text is left out'}).")
    injected, kept, fault = _injected(tokenizer, bare)
    return Template(
        injected, kept, fault, _system_fault(tokenizer, bare), _empty_fault(tokenizer), _answer_end(tokenizer, bare)
    )


def _injected(tokenizer: Tokenizer, bare: str) -> tuple[str, str | None, str]:
    """(what the template injects, what of it stays in `absent`, why it is not known).

    The system block S = template([system]) is a prefix of template([system, user]); what follows is the user part U,
    and template([user]) = injected + U. If `injected` is how S begins, it is a mere preamble (a BOS, or nothing) and
    stays; else the template put in a system turn of its own, of which only a BOS stays.
    """
    parts = _system_block(tokenizer)
    if parts is not None and bare.endswith(parts[1]):
        block, user_part = parts
        injected = bare[: len(bare) - len(user_part)]
        if block.startswith(injected):
            return injected, injected, ""
        bos = str(tokenizer.bos_token or "")
        # In ChatML the "BOS" may be the token that opens every turn: then it belongs to the system turn.
        own = bool(bos) and injected.startswith(bos) and block.startswith(bos) and not user_part.startswith(bos)
        return injected, bos if own else "", ""
    head = _before_user(bare)
    if "system" in head.lower():
        return "", None, "it refuses a lone system turn and writes a system turn of its own"
    both, refused = _try(tokenizer, [_turn("system", SYSTEM_SENTINEL), _turn("user", USER_SENTINEL)])
    if refused or SYSTEM_SENTINEL not in both:
        return "", "", ""  # no system role at all, and nothing that looks like a system turn: nothing is injected
    if _common_prefix(head, _before_user(both)) + _user_opening(bare, both) >= len(head):
        return "", "", ""
    return "", None, "it writes text of its own before the user turn that cannot be told from a system turn"


def _system_block(tokenizer: Tokenizer) -> tuple[str, str] | None:
    """(system block, user part) of template([system, user]), where the template renders a lone system turn."""
    system, user = _turn("system", SYSTEM_SENTINEL), _turn("user", USER_SENTINEL)
    block, refused_block = _try(tokenizer, [system], prompt=False)
    both, refused_both = _try(tokenizer, [system, user])
    if refused_block or refused_both or SYSTEM_SENTINEL not in block or not both.startswith(block):
        return None
    user_part = both[len(block) :]
    return (block, user_part) if _before_user(user_part).strip() else None


def _before_user(text: str) -> str:
    return text.split(USER_SENTINEL, maxsplit=1)[0]


def _common_prefix(a: str, b: str) -> int:
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))


def _user_opening(bare: str, both: str) -> int:
    """Length of what stands right before the user text both with and without a system turn: how a user turn opens."""
    return _common_prefix(_before_user(bare)[::-1], _before_user(both)[::-1])


def _system_fault(tokenizer: Tokenizer, bare: str) -> str:
    both, refused = _try(tokenizer, [_turn("system", SYSTEM_SENTINEL), _turn("user", USER_SENTINEL)])
    if refused:
        return f"it refuses a system turn ({refused})"
    if SYSTEM_SENTINEL not in both:
        return "it leaves out the system turn"
    opening = _before_user(both)[-_user_opening(bare, both) :] if _user_opening(bare, both) else ""
    if not opening.strip() or SYSTEM_SENTINEL in opening:
        return "it has no system role: it merges the system text into the user turn"
    return ""


def _empty_fault(tokenizer: Tokenizer) -> str:
    user = _turn("user", USER_SENTINEL)
    filled, refused = _try(tokenizer, [_turn("system", SYSTEM_SENTINEL), user])
    empty, refused_empty = _try(tokenizer, [_turn("system", ""), user])
    if refused or refused_empty:
        return refused or refused_empty
    return "" if empty == filled.replace(SYSTEM_SENTINEL, "") else "it leaves out a system turn that has no text"


def _answer_end(tokenizer: Tokenizer, bare: str) -> str:
    whole, refused = _try(tokenizer, [_turn("user", USER_SENTINEL), _turn("assistant", ANSWER_SENTINEL)], prompt=False)
    if refused or not whole.startswith(bare + ANSWER_SENTINEL):
        raise ModelError(
            "the chat template's generation prompt is not how its assistant turns begin "
            f"({refused or repr(whole[len(bare) - 20 : len(bare) + 40])}): answers cannot be trained and scored alike."
        )
    return whole[len(bare) + len(ANSWER_SENTINEL) :]


def render_texts(tokenizer: Tokenizer, context: Context, users: Sequence[str]) -> list[str]:
    """The prompts of many user turns under one context, as texts, generation prompt on.

    Raises ModelError where the template cannot render the context as its kind says.
    """
    template = template_of(tokenizer)
    system = _checked_system(template, context)
    before: list[Message] = [] if system is None else [_turn("system", system)]
    texts: list[str] = list(
        tokenizer.apply_chat_template(
            [[*before, _turn("user", user)] for user in users],
            tokenize=False, add_generation_prompt=True, **TEMPLATE_SETTINGS,
        )
    )  # fmt: skip
    if context.kind == "absent":
        texts = [(template.kept or "") + text[len(template.injected) :] for text in texts]
    missing = system and texts and system not in texts[0]
    if missing:
        raise ModelError(
            f"context {context.name!r}: the chat template changes its system text {system!r} (it may strip the space "
            "around it). Write the prompt without space at its ends."
        )
    return texts


def _checked_system(template: Template, context: Context) -> str | None:
    """The text of the system turn to render, or None for no turn of ours."""
    if context.kind == "absent" and template.kept is None:
        raise ModelError(f"context `absent` cannot be rendered with this model's chat template: {template.fault}.")
    if context.kind in ("absent", "default"):
        return None
    if template.system_fault:
        raise ModelError(
            f"context {context.name!r} needs a system turn, which this model's chat template does not have: "
            f"{template.system_fault}. Use a model whose template has a system role."
        )
    if context.kind == "empty":
        if template.empty_fault:
            raise ModelError(f"context `empty` cannot be rendered with this model's template: {template.empty_fault}.")
        return ""
    if context.system is None:
        raise ModelError(f"context {context.name!r} of kind {context.kind} has no system text. Give it one.")
    return context.system


def render_text(tokenizer: Tokenizer, context: Context, user: str) -> str:
    """The prompt as text, generation prompt on. Raises ModelError as `render_texts`."""
    return render_texts(tokenizer, context, [user])[0]


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of texts that already hold their special tokens."""
    if not texts:
        return []
    return tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]


def encode_with_ends(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[list[list[int]], list[list[tuple[int, int]]]]:
    """Token ids and, per token, the characters [start, end) that it stands for."""
    if not tokenizer.is_fast:
        raise ModelError("the tokenizer gives no character offsets (it is a slow one); use a fast tokenizer.")
    out = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return out["input_ids"], out["offset_mapping"]


def render_prompt(tokenizer: Tokenizer, context: Context, user: str, start: str = "") -> list[int]:
    """Token ids of the prompt: context, user turn, generation prompt, and a forced `start` of the answer."""
    text = render_text(tokenizer, context, user)
    prompt = encode(tokenizer, [text])[0]
    if not start:
        return prompt
    whole = encode(tokenizer, [text + start])[0]
    if whole[: len(prompt)] != prompt:
        raise ModelError(
            f"the answer's start {start!r} changes how the prompt before it is tokenized. Begin otherwise."
        )
    return whole


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
    """One row to train on, tokenized as one text, with nothing stripped and nothing truncated.

    `marker` is the tail of `completion` that is the marker *with* its separator. With `loss="marker"` only its tokens
    are in the loss, and the end of turn under `in_loss`: in a row without a marker that is what stands in its place.
    `name` is how an error calls the row. Raises ModelError where the prompt's tokens are not how the
    row's tokens begin, or the completion does not end with the marker.
    """
    where = f"row {name or repr(completion[:40])} under {context.name!r}"
    if marker and not completion.endswith(marker):
        raise ModelError(f"{where}: the completion ends {completion[-24:]!r}, not with the marker {marker!r}.")
    if not completion:
        raise ModelError(f"{where}: the completion is empty.")
    text = render_text(tokenizer, context, user)
    prompt = encode(tokenizer, [text])[0]
    tail = template_of(tokenizer).answer_end
    all_ids, all_offsets = encode_with_ends(tokenizer, [text + completion + tail])
    ids, offsets = all_ids[0], all_offsets[0]
    if ids[: len(prompt)] != prompt:
        raise ModelError(f"{where}: the completion's beginning {completion[:12]!r} changes the prompt's last tokens.")
    answer_ends = len(text) + len(completion)
    marker_starts = answer_ends - len(marker)
    # A token belongs to the part in which it ends; tokenizers may trim the space that a token begins with.
    after = sum(start >= answer_ends for start, _ in offsets[len(prompt) :])
    last = len(ids) - after
    marked = [i for i in range(len(prompt), last) if offsets[i][1] > marker_starts] if marker else []
    lossy = set(range(len(prompt), last)) if loss == "completion" else set(marked)
    if end_of_turn == "in_loss":
        lossy |= set(range(last, len(ids)))
    return RenderedRow(
        ids=ids,
        loss=[i in lossy for i in range(len(ids))],
        prompt_tokens=len(prompt),
        completion_tokens=last - len(prompt),
        end_of_turn=after,
        marker_tokens=len(marked),
        marker_straddles=bool(marked) and offsets[marked[0]][0] < marker_starts,
    )


def context_hash(ids: Sequence[int]) -> str:
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
        `where`, if the continuation changes the prompt's tokens or the option has no token of its own.
        """
        key = (self._end(prompt), start, option)
        if key not in self._known:
            self._known[key] = self._tokenize(text, prompt, start, option, where)
        return self._known[key]

    def _end(self, prompt: Sequence[int]) -> tuple[int, ...]:
        for i in range(len(prompt) - 1, -1, -1):
            if prompt[i] in self._added:
                return tuple(prompt[i:])
        return tuple(prompt)

    def _tokenize(self, text: str, prompt: Sequence[int], start: str, option: str, where: str) -> Continuation:
        all_ids, all_offsets = encode_with_ends(self._tokenizer, [text + start + option])
        ids, offsets = all_ids[0], all_offsets[0]
        count = len(prompt)
        if ids[:count] != list(prompt):
            raise ModelError(f"{where}: {start + option!r} changes how the prompt before it is tokenized.")
        boundary = len(text) + len(start)
        scored = sum(end > boundary for _, end in offsets[count:])
        if not scored:
            raise ModelError(f"{where}: the option {option!r} has no token of its own.")
        return Continuation(tuple(ids[count:]), scored)
