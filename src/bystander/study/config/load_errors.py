"""The faults of a study file: all of them at once, each with its line, also those that a schema cannot know."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from bystander.core.errors import BystanderError, StudyError
from bystander.core.records import Persona
from bystander.core.yamlfile import Path_, YamlText
from bystander.personas import load_personas
from bystander.study.config.checks import CHECKS, Facts
from bystander.study.config.study import StudySettings, study_model

# Stand-ins for what is missing or wrong, so that the rest of a faulty file can still be checked.
_STAND_INS: dict[Path_, Any] = {
    ("name",): "unnamed",
    ("sources",): ["assistant"],
    ("behaviors",): ["marker"],
    ("probes",): {"marker": {}},
    ("geometry",): {"layer": 1},
    ("sweep", "source"): "assistant",
    ("sweep", "grid", "lr"): [1.0],
    ("sweep", "grid", "epochs"): [1],
}
# A faulty element of a list of blocks: nothing like any other element, so that it is neither missed nor a repetition.
_ELEMENTS: dict[Path_, Callable[[int], Any]] = {
    ("sweep", "configs"): lambda index: {"lr": 1.0, "epochs": 1_000_000 + index}
}


@dataclass
class StudyFaults:
    """Collects faults. `overridden` are the places that --set wrote: they have no line in the file."""

    file: str
    parsed: YamlText
    data: dict[str, Any]
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


def validate(data: dict[str, Any], faults: StudyFaults) -> StudySettings | None:
    """The study; where the file has faults, the study that it would be without them, so that checking can go on.
    None where not even that can be made."""
    for place, number in _numbers(data, ()):
        if not math.isfinite(number):
            faults.add(place, f"{_dots(place)} is {number}: a number must be finite")
    mended: dict[str, Any] = data
    for _ in range(6):  # each round takes out what the last one found; a block in a block in a block needs three
        try:
            return study_model().model_validate(mended)
        except ValidationError as error:
            mended = _without(mended, _tell(error, mended, faults))
    return None


def check(spec: StudySettings, folder: Path, faults: StudyFaults) -> tuple[Persona, ...]:
    """What a schema cannot know: names that must exist, sets that must hold what is drawn from them."""
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


def _tell(error: ValidationError, data: dict[str, Any], faults: StudyFaults) -> list[tuple[Path_, bool]]:
    """Tell every fault of a validation; returns the places and whether something was missing there."""
    messages: dict[Path_, list[str]] = {}
    missing: dict[Path_, bool] = {}
    for one in error.errors():
        place = _place(one["loc"], data)
        missing[place] = one["type"] == "missing"
        messages.setdefault(place, [])
        text = _message(place, cast("dict[str, Any]", one))
        if text not in messages[place]:
            messages[place].append(text)
    for place, texts in messages.items():
        faults.add(place, texts[0] + "".join(f", or {t.partition(': ')[2]}" for t in texts[1:]))
    return list(missing.items())


def _place(loc: tuple[int | str, ...], data: object) -> Path_:
    """Where a fault stands in the file: the parts of pydantic's place that are the file's own, not a type's name."""
    place: list[int | str] = []
    here: Any = data
    for index, part in enumerate(loc):
        last = index == len(loc) - 1
        if isinstance(here, dict):
            inner = cast("dict[Any, Any]", here)
            if part in inner or (last and not _is_type(part)):
                place.append(part)
                here = inner.get(part)
        elif isinstance(here, list) and isinstance(part, int) and part < len(cast("list[Any]", here)):
            place.append(part)
            here = here[part]
    return tuple(place)


def _is_type(part: object) -> bool:
    return isinstance(part, str) and (part in ("str", "int", "float", "bool") or part.endswith("]"))


def _message(place: Path_, error: dict[str, Any]) -> str:
    where = _dots(place)
    if error["type"] == "extra_forbidden":
        return f"unknown key {where!r}; {_nearest(place)}"
    if error["type"] == "missing":
        return f"{where!r} is missing"
    value = repr(error["input"])
    shown = value if len(value) < 60 else value[:57] + "..."
    return f"{where} is {shown}: {str(error['msg'])[0].lower()}{str(error['msg'])[1:]}"


def _dots(place: Path_) -> str:
    return ".".join(str(part) for part in place) or "the file"


def _nearest(place: Path_) -> str:
    model: type[BaseModel] = study_model()
    for part in place[:-1]:
        if isinstance(part, int):
            continue
        found = model.model_fields.get(part)
        inner = _model_in(found.annotation) if found else None
        if inner is None:
            return "remove it"
        model = inner
    known = list(model.model_fields)
    close = difflib.get_close_matches(str(place[-1]), known, 1)
    return f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(inner) for inner in getattr(annotation, "__args__", ()))
    return next((model for model in found if model is not None), None)


def _without(data: dict[str, Any], places: Sequence[tuple[Path_, bool]]) -> dict[str, Any]:
    """A copy of `data` without what stands at the places; stand-ins where something needed is then missing."""
    mended = deepcopy(data)
    for place, missing in sorted(places, key=lambda item: [str(part) for part in item[0]], reverse=True):
        if place in _STAND_INS:
            _put(mended, place, deepcopy(_STAND_INS[place]))
        elif place:
            _drop(mended, place[:-1] if missing and len(place) > 1 else place)
    return mended


def _put(data: dict[str, Any], place: Path_, value: object) -> None:
    here: Any = data
    for part in place[:-1]:
        here = here[part]
    here[place[-1]] = value


def _drop(data: dict[str, Any], place: Path_) -> None:
    """Takes out a key. An element stays in its list as text, so that the places of those behind it stay right; a list
    of anything else goes as a whole."""
    for above, stand_in in _ELEMENTS.items():
        if place[: len(above)] == above and isinstance(index := (*place, None)[len(above)], int):
            return _put(data, place[: len(above) + 1], stand_in(index))
    here: Any = data
    for part in place[:-1]:
        try:
            here = here[part]
        except (KeyError, IndexError, TypeError):
            return None
    last = place[-1] if place else None
    if isinstance(here, dict):
        cast("dict[Any, Any]", here).pop(last, None)
    elif isinstance(here, list) and isinstance(last, int):
        items = cast("list[Any]", here)
        if isinstance(items[last], str) or any(isinstance(item, dict | float) for item in items):
            _drop(data, place[:-1])
        else:
            items[last] = str(items[last])
    return None


def _numbers(value: object, place: Path_) -> list[tuple[Path_, float]]:
    if isinstance(value, float):
        return [(place, value)]
    if isinstance(value, dict):
        return [f for k, v in cast("dict[Any, Any]", value).items() for f in _numbers(v, (*place, k))]
    if isinstance(value, list):
        return [f for i, v in enumerate(cast("list[Any]", value)) for f in _numbers(v, (*place, i))]
    return []
