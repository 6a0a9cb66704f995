"""Paths that `--set` gives start from the working folder, as a shell's do; those in a study file start from its folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, cast, get_args, get_origin

from pydantic import BaseModel

from bystander.core.settings import MayNameAFile, field_of

ENDINGS = (".yaml", ".yml", ".json", ".jsonl", ".parquet", ".csv")


def from_working_folder(block: type[BaseModel], where: Sequence[str], value: object) -> object:
    """A value that `--set` puts at `where` of a block, with every relative path in it made absolute. Settings that may
    name a file say so where they are declared (`core.settings.FileName`), in any package."""
    types: list[Any] = [block]
    for key in where:
        types = _inside(types, key)
    return _absolute(types, value)


def named_files(block: type[BaseModel], values: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """(dotted key, text) of everything in the values of a block that may name a file."""
    for key, value in values.items():
        yield from _named(_inside([block], key), value, key)


def _named(types: list[Any], value: object, where: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, one in cast("Mapping[str, object]", value).items():
            yield from _named(_inside(types, key), one, f"{where}.{key}")
    elif isinstance(value, list):
        items = [one for kind in types if get_origin(kind) is list for one in _flat(get_args(kind)[0])]
        for index, one in enumerate(cast("list[object]", value)):
            yield from _named(items, one, f"{where}.{index}")
    elif isinstance(value, str) and MayNameAFile in types:
        yield where, value


def _absolute(types: list[Any], value: object) -> object:
    if isinstance(value, Mapping):
        inner = cast("Mapping[str, object]", value)
        return {key: _absolute(_inside(types, key), one) for key, one in inner.items()}
    if isinstance(value, list):
        items = [one for kind in types if get_origin(kind) is list for one in _flat(get_args(kind)[0])]
        return [_absolute(items, one) for one in cast("list[object]", value)]
    if not isinstance(value, str) or MayNameAFile not in types:
        return value
    is_path = Path(value).is_file() or (value.endswith(ENDINGS) and ":" not in value)
    return str(Path(value).absolute()) if is_path else value


def _inside(types: list[Any], key: str) -> list[Any]:
    """The types that a value may have under a key of a value of `types`."""
    found: list[Any] = []
    for kind in types:
        if get_origin(kind) is dict:
            found += _flat(get_args(kind)[1])
        elif isinstance(kind, type) and issubclass(kind, BaseModel) and (field := field_of(kind, key)) is not None:
            found += [*_flat(field.annotation), *_marks(field.metadata)]
    return found


def _flat(annotation: Any) -> Iterator[Any]:
    """The types that an annotation allows, `MayNameAFile` among them where it marks a text."""
    if get_origin(annotation) is Annotated:
        yield from _flat(get_args(annotation)[0])
        yield from _marks(get_args(annotation)[1:])
    elif get_origin(annotation) in (list, dict) or isinstance(annotation, type):
        yield annotation
    else:
        for one in get_args(annotation):
            yield from _flat(one)


def _marks(metadata: Sequence[Any]) -> Iterator[Any]:
    if any(isinstance(mark, MayNameAFile) for mark in metadata):
        yield MayNameAFile
