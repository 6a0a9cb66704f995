"""The base of every block of a study file."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo


class Settings(BaseModel):
    """A block of settings: unknown keys, wrong types and numbers that are not finite are faults; values do not change.

    The text below a field is its description: editors show it, and the settings reference is made of it. A unit stands
    first, in brackets."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def field_of(model: type[BaseModel], key: str) -> FieldInfo | None:
    """The field that stands in a file under that key, which need not be its name in code."""
    return next((field for name, field in model.model_fields.items() if key == (field.alias or name)), None)


class MayNameAFile:
    """Marks a text of a block that may be a path, beside names of sets and datasets on the Hub."""


FileName = Annotated[str, MayNameAFile()]
