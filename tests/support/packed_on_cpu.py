"""The packed forward pass, which a GPU runs, on a CPU."""

from __future__ import annotations

import pytest

from bystander.lm import loaded as loading
from bystander.lm.model import LoadedModel


def pack_this_one(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the model lay where the packed pass runs. Others stay plain, so that they can be held against it."""
    own = next(loaded.causal.parameters())
    monkeypatch.setattr(loading, "has_flash", lambda parameter: parameter is own)
