"""Writes the settings reference (docs/settings*.md) from the descriptions that stand below the
settings' fields: `python tools/docs/settings_pages.py` after a change of them (`make generated`)."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from bystander.study.config.blocks import ExecutorSettings
from bystander.study.config.schema import behavior_blocks, study_model

DOCS = Path(__file__).resolve().parents[2] / "docs"
INTRO = """\
# {title}

Made from the settings themselves by `make generated`; your editor shows the same while you type (`bystander schema`).
A key without a default must be given. Unknown keys, and values of another type, are faults told with their line.
{more}
"""
STUDY, PROBES = "[a study](settings.md)", "[behaviors and probes](settings-probes.md)"
RUNNING = "[executors and trackers](settings-running.md)"
PAGES = {
    "settings.md": ("Settings of a study", f"Further pages: {PROBES}, {RUNNING}."),
    "settings-probes.md": ("Settings of behaviors and probes", f"Further pages: {STUDY}, {RUNNING}."),
    "settings-running.md": ("Settings of executors and trackers", f"Further pages: {STUDY}, {PROBES}."),
}
UNIT = re.compile(r"^\[([^\]]+)\] (.*)$", re.DOTALL)


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """The blocks that a type allows."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in models_in(inner)]


def type_of(annotation: Any) -> str:
    """A type in a reader's words."""
    if annotation is Any:
        return "text"
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is list:
        return f"list of {type_of(inner[0])}"
    if origin is dict:
        return f"{type_of(inner[0])}: {type_of(inner[1])}"
    if str(origin) == "typing.Literal":
        return ", ".join(f"`{value}`" for value in inner)
    if origin is Union or str(origin) == "<class 'types.UnionType'>":
        return " or ".join(dict.fromkeys(type_of(one) for one in inner if one is not type(None)))
    if inner:  # Annotated
        return type_of(inner[0])
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "block"
    return {"str": "text", "int": "whole number", "float": "number", "bool": "true or false"}[annotation.__name__]


def default_of(field: FieldInfo) -> str:
    """The default as YAML would have it; "" where the key must be given."""
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return ""
    if isinstance(value, BaseModel):
        return "its own" if not isinstance(value, ExecutorSettings) else "`{kind: local}`"
    return "none" if value is None else f"`{json.dumps(value, ensure_ascii=False, default=str)}`"


def row(key: str, field: FieldInfo) -> str:
    """A key's line: type, default, unit, what it is and why."""
    text = " ".join((field.description or "").split())
    unit, text = found.groups() if (found := UNIT.match(text)) else ("", text)
    bounds = [f"{sign} {value}" for mark in field.metadata for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")) if (value := getattr(mark, name, None)) is not None]  # fmt: skip
    kind = " ".join([type_of(field.annotation), *bounds])
    cells = [f"`{key}`", kind, default_of(field), unit, text]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def table(title: str, model: type[BaseModel], without: frozenset[str] = frozenset()) -> Iterator[str]:
    """A block's section."""
    keys = {field.alias or name: field for name, field in model.model_fields.items() if name not in without}
    if not keys:
        return
    yield f"\n## {title}\n\n| key | type | default | unit | what and why |\n|---|---|---|---|---|\n"
    yield "".join(row(key, field) + "\n" for key, field in keys.items())


def sections(prefix: str, model: type[BaseModel], seen: set[type[BaseModel]], skip: set[str]) -> Iterator[str]:
    """A block and those inside it, each once."""
    for key, field in model.model_fields.items():
        name = field.alias or key
        if name in skip:
            continue
        inner = models_in(field.annotation)
        for one in inner:
            if one in seen:
                continue
            seen.add(one)
            kind = one.model_fields.get("kind")
            dots = f"{prefix}{name}"
            yield from table(f"`{dots}`" + (f", kind `{kind.default}`" if kind and len(inner) > 1 else ""), one)
            yield from sections(f"{dots}.", one, seen, set())


def pages() -> dict[str, str]:
    """Name -> text of the pages."""
    model = study_model()
    running, probes = {"executor", "track"}, {"probes", "behaviors", *behavior_blocks()}
    keys = {field.alias or name for name, field in model.model_fields.items()}
    seen: set[type[BaseModel]] = set()
    texts = {
        "settings.md": [*table("The file", model), *sections("", model, seen, running | probes)],
        "settings-probes.md": [*sections("", model, seen, keys - probes)],
        "settings-running.md": [*sections("", model, seen, keys - running)],
    }
    intro = {name: INTRO.format(title=title, more=more) for name, (title, more) in PAGES.items()}
    return {name: intro[name] + "".join(parts) for name, parts in texts.items()}


if __name__ == "__main__":
    for name, text in pages().items():
        (DOCS / name).write_text(text, encoding="utf-8")
        sys.stdout.write(f"{name}: {len(text.splitlines())} lines\n")
