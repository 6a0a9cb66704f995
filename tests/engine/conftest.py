"""A tiny study file for the engine's tests, made once a module."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.study_tiny import make_model, write_study


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, embedded: Path) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def study_file(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    return write_study(tmp_path_factory.mktemp("study"), model)
