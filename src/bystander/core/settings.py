"""The base of every block of a study file."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """A block of settings: unknown keys, wrong types and numbers that are not finite are faults; values do not change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class MayNameAFile:
    """Marks a text of a block that may be a path, beside names of sets and datasets on the Hub."""


FileName = Annotated[str, MayNameAFile()]
