"""The judge's cache leaves no connection behind, whoever forgets to close it."""

from __future__ import annotations

import gc
import sqlite3
from pathlib import Path

import pytest

from bystander.core.errors import StoreError
from bystander.judge import answer_store
from bystander.judge.answer_store import AnswerStore


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[sqlite3.Connection]:
    """The connections that were opened, in order."""
    connect, found = sqlite3.connect, list[sqlite3.Connection]()

    def kept(*values: object, **named: object) -> sqlite3.Connection:
        found.append(connect(*values, **named))  # type: ignore[arg-type]
        return found[-1]

    monkeypatch.setattr(answer_store.sqlite3, "connect", kept)
    return found


def is_closed(connection: sqlite3.Connection) -> bool:
    try:
        connection.execute("SELECT 1")
    except sqlite3.ProgrammingError as error:
        return "closed" in str(error)
    return False


def test_a_store_that_nobody_closed_is_closed_when_it_is_gone(tmp_path: Path, opened: list[sqlite3.Connection]) -> None:
    store = AnswerStore(tmp_path / "answers.sqlite")
    assert not is_closed(opened[0])
    del store
    gc.collect()
    assert is_closed(opened[0])


def test_a_file_that_is_something_else_is_closed_too(tmp_path: Path, opened: list[sqlite3.Connection]) -> None:
    (tmp_path / "answers.sqlite").write_text("this is no database, and longer than its header of a hundred bytes" * 9)
    with pytest.raises(StoreError, match="as the judge's cache"):
        AnswerStore(tmp_path / "answers.sqlite")
    gc.collect()
    assert is_closed(opened[0])
