"""Read a persona file: the built-in one, or a user's own that replaces it. All faults come at once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from bystander.core.errors import DataError
from bystander.core.records import Persona

SOURCES: tuple[str, ...] = ("villain", "comedian", "assistant", "software_engineer", "kindergarten_teacher")
BUILTIN = Path(__file__).with_name("builtin.yaml")

_KEYS = ("name", "prompt", "category", "related_to")
_REQUIRED = ("name", "prompt", "category")
_RESERVED = ("absent", "empty", "default")  # contexts are told apart by these names in every table
# Names become file names and table keys on every system, so they keep to what is safe and case-blind everywhere.
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_FORM = "a persona file is `personas:` and below it a list of entries with name, prompt, category and related_to"


@dataclass
class _Draft:
    """An entry as read so far, with the line of each of its fields for the faults that need the whole file."""

    fields: dict[str, str]
    related_to: list[tuple[str, int]]
    lines: dict[str, int]


@dataclass
class _Faults:
    path: Path
    found: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])

    def add(self, line: int, message: str) -> None:
        self.found.append((line, message))

    def raise_any(self) -> None:
        if self.found:
            listed = [f"  - {self.path}:{line}: {message}" for line, message in sorted(self.found)]
            count = "1 fault" if len(listed) == 1 else f"{len(listed)} faults"
            raise DataError("\n".join([f"the persona file {self.path} has {count}; correct and run again", *listed]))


def load_personas(path: Path | None = None) -> list[Persona]:
    """The personas of a YAML file in its order; of the 111 built in where `path` is None.

    Raises DataError, with file and line of every fault, for a file that is missing, empty, not text or not YAML, and
    for entries with unknown, doubled, missing or mistyped keys, a doubled or unusable name, a doubled or empty
    prompt, or a relation to a persona that the file does not have.
    """
    path = BUILTIN if path is None else Path(path)
    faults = _Faults(path)
    drafts = [draft for node in _entries(path, _compose(path), faults) if (draft := _draft(node, faults))]
    _check_together(drafts, faults)
    faults.raise_any()
    return [
        Persona(
            draft.fields["name"],
            draft.fields["prompt"],
            draft.fields["category"],
            tuple(name for name, _ in draft.related_to),
        )
        for draft in drafts
    ]


def _read(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot read the persona file {path}: {error.strerror or error}; give the path of a YAML file"
        ) from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path}:{line}: byte {raw[error.start]:#04x} is not UTF-8 text; give a YAML file saved as UTF-8"
        ) from error
    if not text.strip():
        raise DataError(f"{path}:1: the persona file is empty; {_FORM}")
    return text


def _compose(path: Path) -> yaml.Node:
    text = _read(path)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise DataError(f"{path}:{line}: not YAML: {error.problem or error.context}; correct this line") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, int(error.position)) + 1
        raise DataError(
            f"{path}:{line}: a character that YAML does not allow ({error.character!r}); is this a text file?"
        ) from error
    except RecursionError as error:
        raise DataError(f"{path}:1: nested too deeply to be a persona file; {_FORM}") from error
    if node is None:
        raise DataError(f"{path}:1: nothing but comments; {_FORM}")
    return node


def _line(node: yaml.Node) -> int:
    return node.start_mark.line + 1


def _kind(node: yaml.Node) -> str:
    names = {"map": "a mapping", "seq": "a list", "str": "text", "int": "a number", "float": "a number", "null": "null"}
    short = node.tag.rsplit(":", 1)[-1]
    return names.get(short, f"a {short}")


def _entries(path: Path, root: yaml.Node, faults: _Faults) -> list[yaml.Node]:
    if not isinstance(root, yaml.MappingNode):
        raise DataError(f"{path}:{_line(root)}: {_kind(root)} where `personas:` belongs; {_FORM}")
    entries: list[yaml.Node] = []
    seen = False
    for name, key, value in _items(root, faults):
        if name != "personas":
            faults.add(_line(key), f"unknown key {name!r}; the one key of the file is `personas`")
            continue
        seen = True
        if not isinstance(value, yaml.SequenceNode) or not value.value:
            faults.add(_line(value), f"`personas` must be a list with at least one entry, not {_kind(value)}")
        else:
            entries = list(value.value)
    if not seen:
        faults.add(_line(root), f"no key `personas`; {_FORM}")
    return entries


def _items(node: yaml.MappingNode, faults: _Faults) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
    """(key, its node, value's node); a doubled key is a fault, since a YAML loader would keep the last in silence."""
    seen: set[str] = set()
    for key, value in node.value:
        name = key.value if isinstance(key, yaml.ScalarNode) else _kind(key)
        if name in seen:
            faults.add(_line(key), f"the key {name!r} stands twice in one entry; keep one")
            continue
        seen.add(name)
        yield name, key, value


def _text(key: str, node: yaml.Node, faults: _Faults) -> str | None:
    if not isinstance(node, yaml.ScalarNode) or node.tag != "tag:yaml.org,2002:str":
        shown = f" ({node.value})" if isinstance(node, yaml.ScalarNode) and node.value else ""
        hint = "; put it in quotes" if shown else ""
        faults.add(_line(node), f"`{key}` must be text, not {_kind(node)}{shown}{hint}")
        return None
    return node.value


def _draft(node: yaml.Node, faults: _Faults) -> _Draft | None:
    """The entry, or None where it has no usable name, prompt or category (the faults say why)."""
    if not isinstance(node, yaml.MappingNode):
        faults.add(_line(node), f"an entry must be a mapping with name, prompt and category, not {_kind(node)}")
        return None
    draft = _Draft({}, [], {"entry": _line(node)})
    present: set[str] = set()
    for name, key, value in _items(node, faults):
        present.add(name)
        draft.lines[name] = _line(value)
        if name not in _KEYS:
            faults.add(_line(key), f"unknown key {name!r}; an entry may have {', '.join(_KEYS)}")
        elif name == "related_to":
            draft.related_to = _relations(value, faults)
        elif (text := _text(name, value, faults)) is not None:
            draft.fields[name] = text
            _check_field(name, text, _line(value), faults)
    for name in _REQUIRED:
        if name not in present:
            faults.add(_line(node), f"the entry has no `{name}`; add it")
    return draft


def _relations(node: yaml.Node, faults: _Faults) -> list[tuple[str, int]]:
    if not isinstance(node, yaml.SequenceNode):
        faults.add(_line(node), f"`related_to` must be a list of persona names, as in [villain], not {_kind(node)}")
        return []
    texts = [(_text("related_to", item, faults), _line(item)) for item in node.value]
    return [(text, line) for text, line in texts if text is not None]


def _check_field(key: str, text: str, line: int, faults: _Faults) -> None:
    if not text.strip():
        faults.add(line, f"empty {key}; write one (a context without text is not a persona)")
    elif key == "name" and not _NAME.fullmatch(text):
        faults.add(line, f"name {text!r}: use a small letter, then small letters, digits, _ or -, at most 64 in all")
    elif key == "name" and text in _RESERVED:
        faults.add(line, f"name {text!r} is the name of a context; choose another")
    elif text != text.strip():
        # Some chat templates strip the system turn and some do not, so such a prompt would not mean one thing.
        faults.add(line, f"{key} begins or ends with white space; remove it (a block text: write >- or |-)")


def _check_together(drafts: list[_Draft], faults: _Faults) -> None:
    names: dict[str, int] = {}
    prompts: dict[str, tuple[str, int]] = {}
    for draft in drafts:
        name, prompt = draft.fields.get("name", ""), draft.fields.get("prompt", "")
        if name:
            line = draft.lines["name"]
            if name in names:
                faults.add(line, f"the name {name!r} is taken (line {names[name]}); names must differ")
            names.setdefault(name, line)
        if plain := " ".join(prompt.split()):
            line = draft.lines["prompt"]
            if plain in prompts:
                other, at = prompts[plain]
                faults.add(line, f"{name!r} has the prompt of {other!r} (line {at}): {plain!r}; prompts must differ")
            prompts.setdefault(plain, (name, line))
    for draft in drafts:
        for relation, line in draft.related_to:
            if relation not in names:
                faults.add(line, f"related to {relation!r}, which is no persona of this file")
            elif relation == draft.fields.get("name"):
                faults.add(line, f"{relation!r} is related to itself; remove that")
