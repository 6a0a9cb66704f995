"""Contexts, prompts and rows as token ids. No torch."""

from bystander.lm.tokens.checks import (
    check_tokenizer,
    control_finder,
    control_tokens_in,
    joint_differences,
    tokenizer_faults,
    trimmed_ends,
)
from bystander.lm.tokens.rows import (
    Continuation,
    Continuations,
    EndOfTurn,
    LossOn,
    RenderedRow,
    context_hash,
    encode,
    encode_with_ends,
    render_prompt,
    render_row,
)
from bystander.lm.tokens.template import TEMPLATE_SETTINGS, Template, Tokenizer, render_text, render_texts, template_of

__all__ = [
    "TEMPLATE_SETTINGS", "Continuation", "Continuations", "EndOfTurn", "LossOn", "RenderedRow", "Template", "Tokenizer",
    "check_tokenizer", "context_hash", "control_finder", "control_tokens_in", "encode", "encode_with_ends",
    "joint_differences", "render_prompt", "render_row", "render_text", "render_texts", "template_of",
    "tokenizer_faults", "trimmed_ends",
]  # fmt: skip
