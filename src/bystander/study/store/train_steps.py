"""The steps of a training that are on disk, whether it is done or under way."""

from __future__ import annotations

from typing import Any

import polars as pl

from bystander.core.errors import BystanderError
from bystander.core.files import read_json
from bystander.study.store.cell_dir import CellDir


def steps_of(directory: CellDir) -> list[dict[str, Any]]:
    """All steps of a training that is done, those of its last state before; [] for one that has not begun."""
    try:
        if directory.steps_file.is_file():
            return pl.read_parquet(directory.steps_file.read_bytes()).to_dicts()
        state = directory.path / "state.json"
        return list(read_json(state)["steps"]) if state.is_file() else []
    except (BystanderError, OSError):  # between two looks the training ended and its state went
        return []
