"""Contexts, prompts and rows as token ids. No torch."""

from bystander.lm.tokens.checks import (
    check_tokenizer,
    control_finder,
    control_tokens_in,
    joint_differences,
    left_out,
    tokenizer_faults,
    trimmed_ends,
)
from bystander.lm.tokens.prompts import messages, render_text, render_texts, text_in
from bystander.lm.tokens.rows import (
    Continuation,
    Continuations,
    EndOfTurn,
    LossOn,
    RenderedRow,
    context_hash,
    encode,
    encode_with_ends,
    opening_of,
    render_prompt,
    render_row,
)
from bystander.lm.tokens.template import TEMPLATE_SETTINGS, Template, Tokenizer, template_of

__all__ = [
    "TEMPLATE_SETTINGS", "Continuation", "Continuations", "EndOfTurn", "LossOn", "RenderedRow", "Template", "Tokenizer",
    "check_tokenizer", "context_hash", "control_finder", "control_tokens_in", "encode", "encode_with_ends",
    "joint_differences", "left_out", "messages", "opening_of", "render_prompt", "render_row", "render_text", "render_texts", "template_of", "text_in",
    "tokenizer_faults", "trimmed_ends",
]  # fmt: skip
