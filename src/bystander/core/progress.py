"""Where long work says how far it is; `cli.progress` draws it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Bar(Protocol):
    """Where a cell says how far it is."""

    def start(self, name: str, total: int) -> None:
        """Begin a piece of work of `total` units."""
        ...

    def advance(self, by: int = 1, note: str = "") -> None:
        """`by` more units are done."""
        ...


class Silent:
    """A bar for workers and tests: shows nothing."""

    def start(self, name: str, total: int) -> None:
        """Nothing to show."""

    def advance(self, by: int = 1, note: str = "") -> None:
        """Nothing to show."""


Advance = Callable[[int], None]  # so many bytes more
LongWork = Callable[[str, int], AbstractContextManager[Advance]]
_shown: list[LongWork] = []  # of the process, since a model may be fetched in any thread; the last one counts


@contextmanager
def long_work(name: str, total: int) -> Generator[Advance]:
    """Work that no cell counts, such as fetching or converting a model: `total` bytes, told to whoever shows it."""
    if not _shown:
        yield lambda _count: None
        return
    with _shown[-1](name, total) as advance:
        yield advance


@contextmanager
def long_work_shown(show: LongWork) -> Generator[None]:
    """Within the block `show` draws long work."""
    _shown.append(show)
    try:
        yield
    finally:
        _shown.remove(show)
