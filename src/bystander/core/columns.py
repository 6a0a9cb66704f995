"""Tables declared by the records that fill them: a column's name, type and meaning stand in its field's annotation.

A field reads `name: Annotated[type, "meaning"]`. A field whose type is itself such a record (a key that many tables
share) stands for the columns of that record, in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import polars as pl

ColumnType = pl.DataType | type[pl.DataType]
Schema = dict[str, ColumnType]
CellValue = float | int | str | bool | None
PLAIN: dict[Any, ColumnType] = {str: pl.String, int: pl.Int64, float: pl.Float64, bool: pl.Boolean}


@dataclass(frozen=True, slots=True)
class RecordColumn:
    """One column: its polars type, what it means, and how its value is got from a record."""

    name: str
    kind: ColumnType
    meaning: str
    value: Callable[[object], Any]


@cache
def columns_of(record: type) -> tuple[RecordColumn, ...]:
    """The columns that a record declares, in order. Raises TypeError for a field without a meaning, or of a type that is
    no column's."""
    return tuple(
        RecordColumn(path.rpartition(".")[2], kind, meaning, attrgetter(path))
        for path, kind, meaning in _fields(record)
    )


def schema_of(record: type) -> Schema:
    """Column -> polars type."""
    return {column.name: column.kind for column in columns_of(record)}


def meanings_of(record: type) -> dict[str, str]:
    """Column -> what it means."""
    return {column.name: column.meaning for column in columns_of(record)}


def _fields(record: type, prefix: str = "") -> list[tuple[str, ColumnType, str]]:
    found: list[tuple[str, ColumnType, str]] = []
    for name, hint in get_type_hints(record, include_extras=True).items():
        if get_origin(hint) is Annotated:
            plain, *notes = get_args(hint)
            found.append((prefix + name, _kind(plain), str(notes[-1])))
        elif isinstance(hint, type) and hasattr(hint, "__annotations__"):
            found += _fields(hint, f"{prefix}{name}.")
        else:
            raise TypeError(f"{record.__name__}.{name} has no meaning: annotate it, Annotated[type, 'meaning']")
    return found


def _kind(hint: Any) -> ColumnType:
    if get_origin(hint) in (Union, UnionType):
        (hint,) = (part for part in get_args(hint) if part is not type(None))
    if get_origin(hint) is Literal:
        return _kind(type(get_args(hint)[0]))
    if get_origin(hint) is tuple:
        return pl.List(_kind(get_args(hint)[0]))
    if hint not in PLAIN:
        raise TypeError(f"{hint} is the type of no column")
    return PLAIN[hint]
