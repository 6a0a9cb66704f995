"""The base of every block of a study file."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A block of settings: unknown keys, wrong types and numbers that are not finite are faults; values do not change.

    The text below a field is its description: editors show it, and the settings reference is made of it. A unit stands
    first, in brackets."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class MayNameAFile:
    """Marks a text of a block that may be a path, beside names of sets and datasets on the Hub."""


FileName = Annotated[str, MayNameAFile()]
