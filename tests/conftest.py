"""Fixtures that several test files use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder that holds `data/` and `reference/`: $BYSTANDER_DATA, else `shared` beside the repository."""
    given = os.environ.get("BYSTANDER_DATA")
    folder = Path(given) if given else ROOT.parent / "shared"
    if not (folder / "data").is_dir():
        pytest.skip(f"no data at {folder}: set BYSTANDER_DATA to the folder that holds data/ and reference/")
    return folder


@pytest.fixture(scope="session")
def embedded() -> Path:
    """The embedded model's checkpoint; fetched once a machine. Skips where it is not cached and cannot be fetched."""
    from bystander.core.errors import ModelError
    from bystander.lm.embedded import checkpoint_path

    try:
        return checkpoint_path()
    except ModelError as error:
        pytest.skip(f"the embedded model is not to be had here: {error}")


@pytest.fixture(scope="session")
def tokenizer(embedded: Path):
    """The embedded model's tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(embedded)
