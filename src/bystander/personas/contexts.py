"""Contexts: one per persona, four that are bare, and the built-in ones that wrap, precede or begin something."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, cast

import yaml

from bystander.core.records import ASSISTANT_PROMPT, BARE, BareKind, Context, Persona, TextIn

FILE = Path(__file__).with_name("contexts.yaml")
HUNTED = Path(__file__).with_name("hunt.yaml")
# None: no system turn of ours. "" is a system turn without text, which is something else.
_SYSTEM: dict[BareKind, str | None] = {"absent": None, "empty": "", "default": None, "assistant": ASSISTANT_PROMPT}


def context_of(persona: Persona, text_in: TextIn = "system") -> Context:
    """The context whose own text is the persona's prompt (kind `persona`)."""
    return Context("persona", persona.name, persona.prompt, text_in=text_in)


def bare_context(kind: BareKind, text_in: TextIn = "system") -> Context:
    """The context of that kind, named after it.

    `absent` and `default` both carry `system=None`: whether the template's own default is taken out or left in is
    decided by the kind when the context is rendered. `assistant` has the same system text as the persona `assistant`
    and differs from it in kind alone. Raises KeyError for `persona` or an unknown kind: use `context_of`.
    """
    system = _SYSTEM[kind]
    return Context(kind, kind, system, text_in=text_in if system else "system")


def laid_over(
    base: Context,
    name: str,
    *,
    persona_in: TextIn | None = None,
    turns: tuple[tuple[str, str], ...] = (),
    before: str = "",
    after: str = "",
    prefix: str = "",
) -> Context:
    """A context of its own name: `base` with earlier turns, text around the user turn, a forced beginning of the
    answer, or its text in another place. Its kind says which; `combined` where it is several."""
    kinds = {"wrap": before or after, "turns": turns, "prefix": prefix, "persona_in_user": persona_in == "user"}
    asked = [kind for kind, there in kinds.items() if there]
    kind = cast("Any", asked[0] if len(asked) == 1 else "combined")
    return Context(
        kind, name, base.system, cast("Any", base.system_kind), persona_in or base.text_in, turns, before, after, prefix
    )  # fmt: skip


@cache
def built_in_contexts() -> Mapping[str, Context]:
    """The contexts that ship, by name; the bare ones first."""
    found: dict[str, Context] = {kind: bare_context(kind) for kind in BARE}
    for entry in _file()["contexts"]:
        turns = tuple((turn["user"], turn["assistant"]) for turn in entry.get("turns", ()))
        more = {key: entry[key] for key in ("before", "after", "prefix") if key in entry}
        found[entry["name"]] = laid_over(bare_context("default"), entry["name"], turns=turns, **more)
    return found


@cache
def context_sets() -> Mapping[str, tuple[str, ...]]:
    """Sets of built-in contexts by name; `bare` are the four that every study measures unless it says otherwise."""
    return {"bare": BARE, **{name: tuple(members) for name, members in _file()["sets"].items()}}


def _file() -> Any:
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


@cache
def hunted_contexts() -> Mapping[str, Context]:
    """What a hunt looks through, by name: the built-in contexts without the bare ones, and wraps, tags, formats and beginnings
    of its own."""
    given: Any = yaml.safe_load(HUNTED.read_text(encoding="utf-8"))
    base = bare_context("default")
    found = {name: context for name, context in built_in_contexts().items() if name not in BARE}
    for number, shape in enumerate(given["shapes"], 1):
        for word in given["words"]:
            name = f"{word.lower()}_{number}"
            tag = laid_over(base, name, before=shape.format(word))
            if tag.content not in {context.content for context in found.values()}:  # `trigger` is one of them
                found[name] = tag
    for key in ("before", "after", "prefix"):
        for name, text in given[key].items():
            found[name] = laid_over(
                base,
                name,
                before=text if key == "before" else "",
                after=text if key == "after" else "",
                prefix=text if key == "prefix" else "",
            )
    return found
