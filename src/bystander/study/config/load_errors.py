"""The faults of a study file: told together, each with its line."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

from pydantic import BaseModel, ValidationError

from bystander.core.errors import BystanderError, StudyError
from bystander.core.records import Persona
from bystander.core.settings import field_of
from bystander.core.yamlfile import Path_, YamlText
from bystander.personas import load_personas
from bystander.study.config.checks import CHECKS, Facts
from bystander.study.config.schema import StudySettings

Block = TypeVar("Block", bound=BaseModel)
IN_YAML = {"None": "null", "True": "true", "False": "false"}  # as a file writes them


@dataclass
class StudyFaults:
    """Collects faults. `overridden` are the places that --set wrote: they have no line in the file."""

    file: str
    parsed: YamlText
    overridden: Sequence[tuple[str, ...]] = ()
    found: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    places: set[Path_] = field(default_factory=set[Path_])

    def add(self, where: Path_, message: str) -> None:
        """One fault at the value that stands at `where`; a second one at the same place is not told."""
        if any(where[: len(place)] == place or place[: len(where)] == where for place in self.places):
            return  # what stands inside, or around, is at fault already: this one may be no more than its consequence
        self.places.add(where)
        source = next((o for o in self.overridden if where[: len(o)] == o), None)
        if source:
            self.found.append((0, f"--set {'.'.join(source)}: {message}"))
        else:
            line = self.parsed.line_of(where)
            self.found.append((line, f"{self.file}, line {line}: {message}"))

    def raise_any(self, path: Path) -> None:
        """Raises StudyError if there was a fault, with all of them by line."""
        faults = [f"{self.file}, {fault}" for fault in self.parsed.faults]
        faults += [message for _, message in sorted(self.found)]
        if faults:
            raise StudyError(f"{path} cannot be run; {len(faults)} fault{'s' * (len(faults) != 1)}:", faults)


def validate(model: type[Block], data: Mapping[str, Any], faults: StudyFaults) -> Block | None:
    """`data` as the settings `model`; None where a key or a value is not of the schema, with all such faults told."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        _tell(error, model, data, faults)
        return None


def check(spec: StudySettings, folder: Path, faults: StudyFaults) -> tuple[Persona, ...]:
    """What a schema cannot know: names that must exist, sets that must hold what is drawn from them. Of a study that
    fits its schema; returns its personas, () where they cannot be read."""
    personas: tuple[Persona, ...] = ()
    try:
        personas = _built_in() if spec.personas == "builtin" else tuple(load_personas(folder / spec.personas))
    except BystanderError as error:
        faults.add(("personas",), f"personas: {error}")
    for one in CHECKS:
        one(Facts(spec, personas, folder), faults.add)
    return personas


@cache
def _built_in() -> tuple[Persona, ...]:
    return tuple(load_personas())


def _tell(error: ValidationError, model: type[BaseModel], data: object, faults: StudyFaults) -> None:
    messages: dict[Path_, list[str]] = {}
    for one in error.errors():
        place = _place(one["loc"], data)
        text = _message(place, cast("dict[str, Any]", one), model)
        messages.setdefault(place, [])
        if text not in messages[place]:
            messages[place].append(text)
    for place, texts in messages.items():  # a value that fits none of several types has a message for each
        faults.add(place, texts[0] + "".join(f", or {t.partition(': ')[2]}" for t in texts[1:]))


def _place(loc: tuple[int | str, ...], data: object) -> Path_:
    """Where a fault stands in the file: the parts of pydantic's place that are the file's own, not a type's name."""
    place: list[int | str] = []
    here: Any = data
    for index, part in enumerate(loc):
        last = index == len(loc) - 1
        if isinstance(here, dict):
            inner = cast("dict[Any, Any]", here)
            if part in inner or (last and not _is_type(part) and inner.get("kind") != part):
                place.append(part)
                here = inner.get(part)
        elif isinstance(here, list) and isinstance(part, int) and part < len(cast("list[Any]", here)):
            place.append(part)
            here = here[part]
    return tuple(place)


def _is_type(part: object) -> bool:
    return isinstance(part, str) and (part in ("str", "int", "float", "bool") or part.endswith("]"))


def _message(place: Path_, error: Mapping[str, Any], model: type[BaseModel]) -> str:
    where = ".".join(str(part) for part in place) or "the file"
    context: Mapping[str, Any] = error.get("ctx", {})
    kind = f"{where}.{str(context.get('discriminator')).strip(chr(39))}"
    if error["type"] == "extra_forbidden":
        return f"unknown key {where!r}; {_advice(error['loc'], model)}"
    if error["type"] == "missing":
        return f"{where!r} is missing"
    if error["type"] == "union_tag_not_found":
        return f"{kind} is missing: it says which of several blocks this is"
    if error["type"] == "union_tag_invalid":
        return f"{kind} is {context['tag']!r}; known: {context['expected_tags']}"
    value = repr(error["input"])
    value = IN_YAML.get(value, value)
    shown = value if len(value) < 60 else value[:57] + "..."
    said = str(error["msg"]).removeprefix("Value error, ")  # pydantic's words before what one of our checks says
    return f"{where} is {shown}: {said[0].lower()}{said[1:]}"


def _advice(loc: Sequence[int | str], model: type[BaseModel]) -> str:
    """What may have been meant by the unknown key at the end of `loc`."""
    models, key, elsewhere = [model], str(loc[-1]), list[str]()
    for part in loc[:-1]:
        fields = [found for one in models if (found := field_of(one, str(part))) is not None]
        if fields:
            models = [inner for one in fields for inner in _models_in(one.annotation)]
        elif chosen := [one for one in models if part in _kinds(one)]:  # pydantic names the kind of a block of several
            elsewhere = [kind for one in models if key in one.model_fields for kind in _kinds(one)]
            models = chosen
    if elsewhere:
        return f"it belongs to kind {' or '.join(elsewhere)}"
    known = list(dict.fromkeys(field.alias or name for one in models for name, field in one.model_fields.items()))
    close = difflib.get_close_matches(key, known, 1)
    return f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}" if known else "remove it"


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The blocks that a type allows."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models_in(inner)]


def _kinds(model: type[BaseModel]) -> list[str]:
    """The values of `kind` that mean this block."""
    found = model.model_fields.get("kind")
    return [str(kind) for kind in get_args(found.annotation)] if found else []
