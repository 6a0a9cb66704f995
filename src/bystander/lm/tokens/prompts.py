"""The one way from a context and a user turn to the text of a prompt. Whatever is scored, sampled, served, trained on or
read for its hidden states was rendered here."""

from __future__ import annotations

from collections.abc import Sequence

from bystander.core.errors import ModelError
from bystander.core.records import Context, Message, TextIn
from bystander.lm.tokens.template import Template, Tokenizer, conversations_as_text, template_of, turn

LEAVE_OUT = " Leave it out of the contexts."
BETWEEN = "\n\n"  # between a context's text and the user's in one turn, as Gemma 3's and Mistral's templates put it


def render_texts(tokenizer: Tokenizer, context: Context, users: Sequence[str]) -> list[str]:
    """The prompts of many user turns under one context, as texts, generation prompt on, and behind it the context's
    forced beginning of the answer.

    Raises ModelError where the template cannot render the context as its kind says.
    """
    template = template_of(tokenizer)
    place = text_in(template, context)
    system = _checked_system(template, context) if place == "system" else None
    texts = conversations_as_text(tokenizer, [messages(context, user, system, place) for user in users])
    if context.system_kind == "absent" and place == "system":
        texts = [_without_default(template, context, text) for text in texts]
    if texts:
        _check_kept(context, texts[0])
    begun = template.answer_start + context.prefix if context.prefix else ""
    return [text + begun for text in texts]


def render_text(tokenizer: Tokenizer, context: Context, user: str) -> str:
    """The prompt as text, generation prompt on. Raises ModelError as `render_texts`."""
    return render_texts(tokenizer, context, [user])[0]


def text_in(template: Template, context: Context) -> TextIn:
    """Where the context's own text is put with this template: "system" or "user"."""
    if context.text_in == "auto":
        return "system" if template.has_system or not context.system else "user"
    return context.text_in if context.system else "system"


def messages(context: Context, user: str, system: str | None, place: TextIn) -> list[Message]:
    """The turns of a conversation: `system` (None: no such turn), the earlier turns, the user's turn with what stands
    around it. A text that goes to the user stands at the head of the first user turn, where a system turn would be read."""
    users = [*(said for said, _ in context.turns), f"{context.before}{user}{context.after}"]
    if place == "user":
        users[0] = f"{context.system}{BETWEEN}{users[0]}"
    found: list[Message] = [] if system is None else [turn("system", system)]
    for said, (_, answer) in zip(users, context.turns, strict=False):
        found += [turn("user", said), turn("assistant", answer)]
    return [*found, turn("user", users[-1])]


def _without_default(template: Template, context: Context, text: str) -> str:
    if template.kept is None or not text.startswith(template.injected):
        why = template.fault or "it begins a conversation of several turns otherwise than one of a single turn"
        raise ModelError(f"context {context.name!r} cannot be rendered with this model's chat template: {why}.")
    return template.kept + text[len(template.injected) :]


def _check_kept(context: Context, text: str) -> None:
    """Everything that the context puts into the conversation stands in the text as it was written."""
    parts = (
        ("system text", context.system), ("text before the user turn", context.before),
        ("text after the user turn", context.after), *(("earlier turns", part) for one in context.turns for part in one),
    )  # fmt: skip
    for what, part in parts:
        if part and part not in text:
            raise ModelError(
                f"context {context.name!r}: the chat template changes its {what} {part!r} (it may strip the space "
                "around it). Write it without space at its ends."
            )


def _checked_system(template: Template, context: Context) -> str | None:
    """The text of the system turn to render, or None for no turn of ours."""
    kind = context.system_kind
    if kind == "absent" and template.kept is None:
        raise ModelError(
            f"context {context.name!r} cannot be rendered with this model's chat template: {template.fault}.{LEAVE_OUT}"
        )
    if kind in ("absent", "default"):
        return None
    if template.system_fault:
        advice = "" if kind == "empty" else " With `personas_in: auto` the text stands at the head of the user turn."
        raise ModelError(
            f"context {context.name!r} needs a system turn, which this model's chat template does not have: "
            f"{template.system_fault}. Use a model whose template has a system role.{advice}"
        )
    if kind == "empty":
        if template.empty_fault:
            raise ModelError(
                f"context {context.name!r} cannot be rendered with this model's chat template: {template.empty_fault}."
                f"{LEAVE_OUT}"
            )
        return ""
    if context.system is None:
        raise ModelError(f"context {context.name!r} of kind {context.kind} has no system text. Give it one.")
    return context.system
