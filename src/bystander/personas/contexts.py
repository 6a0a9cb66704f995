"""The five contexts, never confused: four that are bare, and one per persona."""

from __future__ import annotations

from typing import Literal

from bystander.core.records import ASSISTANT_PROMPT, Context, Persona

BareKind = Literal["absent", "empty", "default", "assistant"]
# None: no system turn of ours. "" is a system turn without text, which is something else.
_SYSTEM: dict[BareKind, str | None] = {"absent": None, "empty": "", "default": None, "assistant": ASSISTANT_PROMPT}


def context_of(persona: Persona) -> Context:
    """The context whose system turn is the persona's prompt (kind `persona`)."""
    return Context("persona", persona.name, persona.prompt)


def bare_context(kind: BareKind) -> Context:
    """The context of that kind, named after it.

    `absent` and `default` both carry `system=None`: whether the template's own default is taken out or left in is
    decided by the kind when the context is rendered. `assistant` has the same system text as the persona `assistant`
    and differs from it in kind alone. Raises KeyError for `persona` or an unknown kind: use `context_of`.
    """
    return Context(kind, kind, _SYSTEM[kind])
