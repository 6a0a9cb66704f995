"""`contexts:` and `personas_in:` of a study file: what is measured beside the personas, and where personas' texts stand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pydantic import Field

from bystander.core.records import BARE, Context, Persona, TextIn
from bystander.core.settings import Settings
from bystander.core.yamlfile import Path_
from bystander.personas import bare_context, built_in_contexts, context_of, context_sets, laid_over

NAME = r"^[a-z][a-z0-9_-]{0,63}$"  # as a persona's: it becomes a key of tables and a part of file names


class Turn(Settings):
    """An earlier turn of a conversation: what the user said, and the answer."""

    user: str = Field(min_length=1)
    """What the user said."""
    assistant: str = Field(min_length=1)
    """What was answered."""


class Wrap(Settings):
    """Text around the user turn, verbatim: a format, a trigger, an inoculation sentence."""

    before: str = ""
    """Verbatim before the user's text."""
    after: str = ""
    """Verbatim after it."""


class ContextBlock(Settings):
    """A context of one's own, laid over `base`: a bare context, or a persona by its name."""

    name: str = Field(pattern=NAME)
    """What tables call it."""
    base: str = "default"
    """What it is laid over: a bare context, or a persona by its name."""
    persona_in: TextIn | None = None  # where the base's own text stands; left out: as `personas_in` says
    """Where the base's own text stands; left out: as `personas_in` says."""
    wrap: Wrap = Wrap()
    """Text around the user turn: a format, a trigger, an inoculation sentence."""
    turns: list[Turn] = Field(default_factory=list[Turn])
    """Earlier turns of the conversation."""
    prefix: str = ""  # a forced beginning of the answer
    """A forced beginning of the answer."""

    def adds(self) -> bool:
        """Whether it is anything but its base."""
        return bool(self.wrap.before or self.wrap.after or self.turns or self.prefix or self.persona_in)


Entries = Sequence[str | ContextBlock]


def entry_names(entry: str | ContextBlock) -> tuple[str, ...]:
    """The names of the contexts that an entry stands for: its own, or the members of a built-in set. () for a name that
    is neither."""
    if isinstance(entry, ContextBlock):
        return (entry.name,)
    if entry in context_sets():
        return context_sets()[entry]
    return (entry,) if entry in built_in_contexts() else ()


def names_of(entries: Entries) -> list[str]:
    """The names of all contexts of a study beside its personas, each once, in the order of the file."""
    return list(dict.fromkeys(name for entry in entries for name in entry_names(entry)))


def asked_by_name(entries: Entries) -> set[str]:
    """The names of the contexts that a file names one by one, and not as members of a set."""
    return {entry if isinstance(entry, str) else entry.name for entry in entries} - set(context_sets())


def contexts_beside(entries: Entries, personas: Sequence[Persona], personas_in: TextIn) -> tuple[Context, ...]:
    """The contexts of `contexts:`, each once, in the order of the file. Of a study without faults."""
    own = {entry.name: entry for entry in entries if isinstance(entry, ContextBlock)}
    bare: dict[str, Context] = {kind: bare_context(kind, personas_in) for kind in BARE}
    bases = {persona.name: context_of(persona, personas_in) for persona in personas} | bare

    def made(name: str) -> Context:
        if name not in own:
            return bare.get(name) or built_in_contexts()[name]
        block = own[name]
        turns = tuple((turn.user, turn.assistant) for turn in block.turns)
        return laid_over(
            bases[block.base], name, persona_in=block.persona_in, turns=turns, before=block.wrap.before,
            after=block.wrap.after, prefix=block.prefix,
        )  # fmt: skip

    return tuple(made(name) for name in names_of(entries))


def check_contexts(entries: Entries, personas: Sequence[str], add: Callable[[Path_, str], None]) -> None:
    """The faults of `contexts:`; `personas`: the names of the set, none where it cannot be read."""
    taken: dict[str, int] = {}
    for index, entry in enumerate(entries):
        where: Path_ = ("contexts", index)
        if isinstance(entry, str) and not entry_names(entry):
            known = [*context_sets(), *(name for name in built_in_contexts() if name not in context_sets())]
            add(
                where,
                f"context {entry!r} does not exist; known: {', '.join(known)}; one of your own is a block with a name",
            )
            continue
        for name in entry_names(entry):
            if name in taken:
                add(where, f"context {name!r} stands twice (first as entry {taken[name] + 1} of contexts); keep one")
            taken.setdefault(name, index)
        if isinstance(entry, ContextBlock):
            _check_block(entry, where, personas, add)


def _check_block(block: ContextBlock, where: Path_, personas: Sequence[str], add: Callable[[Path_, str], None]) -> None:
    if block.name in context_sets() or block.name in built_in_contexts():
        add((*where, "name"), f"context {block.name!r} is the name of a built-in one; choose another")
    elif block.name in personas:
        add((*where, "name"), f"context {block.name!r} has the name of a persona; choose another")
    if personas and block.base not in BARE and block.base not in personas:
        add((*where, "base"), f"base {block.base!r} is no persona of the set and none of {', '.join(BARE)}")
    if not block.adds():
        add(where, f"context {block.name!r} is its base and nothing more: give wrap, turns, prefix or persona_in")
    if block.persona_in and block.base in ("absent", "default", "empty"):
        add(
            (*where, "persona_in"),
            f"persona_in places the text of a persona, and base {block.base!r} has none; name one",
        )
    texts = {("wrap", "before"): block.wrap.before, ("wrap", "after"): block.wrap.after, ("prefix",): block.prefix}
    for place, text in texts.items():
        key = ".".join(place)
        if text and not text.strip():
            add((*where, *place), f"{key} is white space alone; give a text, or leave it out")
        elif place == ("wrap", "before") and text != text.lstrip():
            add((*where, *place), f"{key} begins with white space, which some chat templates take off; remove it")
        elif place == ("wrap", "after") and text != text.rstrip():
            add((*where, *place), f"{key} ends with white space, which some chat templates take off; remove it")
        elif place == ("prefix",) and text != text.strip():
            add(
                (*where, *place),
                "prefix begins or ends with white space: the answer's first token would no longer be what it is without; remove it",
            )
    for index, turn in enumerate(block.turns):
        for key, text in (("user", turn.user), ("assistant", turn.assistant)):
            if text != text.strip():
                add((*where, "turns", index, key), f"turns.{key} begins or ends with white space; remove it")
