"""What a tokenizer and its template do to texts, to be asked before anything is trained. Nothing here needs weights."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

from bystander.core.errors import ModelError, few_names
from bystander.core.records import Context
from bystander.lm.tokens.prompts import LEAVE_OUT, render_text
from bystander.lm.tokens.rows import answer_of, encode, render_prompt
from bystander.lm.tokens.template import Tokenizer, template_of

ABSENT = Context("absent", "absent", None)
# Vocabularies hold such words as added tokens, too (Gemma's): they open no turn and end none.
MARKUP = re.compile(r"</?[a-z][a-z0-9]*>")


def left_out(tokenizer: Tokenizer, contexts: Sequence[Context], asked: Collection[str]) -> dict[str, str]:
    """Bare contexts without a text that this template cannot render, with the reason: what they are named after does not
    exist there. Not those whose names were `asked` for: that is a fault, which `tokenizer_faults` says."""
    kinds = ("absent", "default", "empty")
    faults = {c.name: _context_fault(tokenizer, c, None) for c in contexts if c.kind in kinds and c.name not in asked}
    return {name: fault.removesuffix(LEAVE_OUT) for name, fault in faults.items() if fault}


def check_tokenizer(tokenizer: Tokenizer, contexts: Sequence[Context], window: int | None = None) -> None:
    """Raises ModelError with all of `tokenizer_faults`, if there are any."""
    faults = tokenizer_faults(tokenizer, contexts, window)
    if faults:
        lines = "\n".join(f"  - {fault}" for fault in faults)
        raise ModelError(
            f"this model's tokenizer cannot serve the study ({len(faults)} fault{'s' * (len(faults) != 1)}):\n{lines}"
        )


def tokenizer_faults(tokenizer: Tokenizer, contexts: Sequence[Context], window: int | None = None) -> list[str]:
    """Why this tokenizer and its chat template cannot render the contexts, or cannot render them alike at every call;
    [] where they can. `window`: the longest sequence in tokens that the model takes."""
    if not tokenizer.is_fast:
        return [
            "the tokenizer is a slow one, which gives no character offsets. Save the model with a fast tokenizer "
            "(a tokenizer.json)."
        ]
    try:
        template_of(tokenizer)
    except ModelError as error:
        return [str(error)]
    found: dict[str, list[str]] = {}  # fault -> the contexts that have it
    for context in contexts:
        fault = _context_fault(tokenizer, context, window)
        if fault:
            found.setdefault(fault, []).append(context.name)
    return [_shared(fault, names) for fault, names in found.items()]


def _context_fault(tokenizer: Tokenizer, context: Context, window: int | None) -> str:
    try:
        ids = render_prompt(tokenizer, context, "Hi")
    except ModelError as error:
        return str(error).replace(f"context {context.name!r}", "this context")
    if window is not None and len(ids) > window:
        return (
            f"with a user turn of one word it takes {len(ids)} tokens, but the model's window is {window}. Shorten it."
        )
    return ""


def _shared(fault: str, names: Sequence[str]) -> str:
    word = "context" if len(names) == 1 else f"{len(names)} contexts:"
    return f"{word} {few_names(list(names))}: {fault}"


def control_tokens_in(tokenizer: Tokenizer, text: str) -> list[str]:
    """The control tokens that `text` becomes, in order of id: added tokens that are written out in it, such as
    `<|im_end|>`. Not counted are added tokens that are mere vocabulary: runs of white space, and HTML tags that neither
    the tokenizer calls special nor the template writes."""
    return control_finder(tokenizer)(text)


def control_finder(tokenizer: Tokenizer) -> Callable[[str], list[str]]:
    """`control_tokens_in` for many texts."""
    template = str(tokenizer.chat_template)
    controls = {
        token_id: str(token.content)
        for token_id, token in sorted(tokenizer.added_tokens_decoder.items())
        if _is_control(token, template)
    }

    def find(text: str) -> list[str]:
        # A text may hold the letters of an added token that takes whole words only: its ids decide.
        if not any(content in text for content in controls.values()):
            return []
        ids = set(encode(tokenizer, [text])[0])
        return [content for token_id, content in controls.items() if token_id in ids]

    return find


def _is_control(token: Any, template: str) -> bool:
    content = str(token.content)
    if not content.strip():
        return False
    return bool(token.special) or content in template or not MARKUP.fullmatch(content)


def joint_differences(tokenizer: Tokenizer, answers: Sequence[str], context: Context = ABSENT) -> list[int]:
    """The indices of the answers that would be other tokens if prompt, answer and end of turn were tokenized as one
    text, as most trainers do. They are trained, scored and sampled by themselves here; elsewhere their numbers differ."""
    text = render_text(tokenizer, context, "Hi")
    prompt = encode(tokenizer, [text])[0]
    end = template_of(tokenizer).answer_end
    return [i for i, answer in enumerate(answers) if answer_of(tokenizer, text, prompt, answer, end).joined]


def trimmed_ends(tokenizer: Tokenizer, user: str) -> bool:
    """Whether the template takes white space off the ends of this user turn."""
    return template_of(tokenizer).trims_user and user != user.strip()
