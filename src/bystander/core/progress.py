"""Where long work says how far it is; `cli.progress` draws it."""

from __future__ import annotations

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
