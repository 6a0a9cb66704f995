"""The console that commands print on, and its tables: where the screen is narrow names are cut, never a number."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

WIDE = 120  # columns where there is no terminal to ask: tables are cut at fewer
LEAST = 6  # columns that a name is cut to at most
GAP = 2  # between columns
console = Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else WIDE)


def screen_for(as_json: bool) -> Console:
    """Where a command says what it does: standard error where standard output is for a program."""
    return Console(stderr=True, highlight=False, emoji=False) if as_json else console


def print_json(value: object) -> None:
    """JSON on standard output, for a program to read; in ASCII where the stream has no UTF-8."""
    plain = not (sys.stdout.encoding or "").lower().startswith("utf")
    console.print_json(json.dumps(value, ensure_ascii=plain), ensure_ascii=plain)


class Grid:
    """A table of plain text: columns of names, then columns of numbers. Text in it is never read as markup."""

    def __init__(self, names: Sequence[str], numbers: Sequence[str] = (), title: str = "") -> None:
        self.names, self.numbers, self.title = names, numbers, title
        self.rows: list[tuple[str, ...]] = []

    def add(self, *cells: str) -> None:
        """A row: a cell for each column."""
        assert len(cells) == len(self.names) + len(self.numbers)
        self.rows.append(cells)

    def print(self, screen: Console = console) -> None:
        """Print it; a screen that is too narrow for the numbers alone breaks the lines itself."""
        screen.print(self, crop=False)

    def widths(self, room: int) -> list[int]:
        """Of every column, in a screen of `room` columns: headers break first, then the longest names are cut."""
        headers, n = [*self.names, *self.numbers], len(self.names)
        body = [max((cell_len(row[i]) for row in self.rows), default=0) for i in range(len(headers))]
        found = [max(width, cell_len(header)) for width, header in zip(body, headers, strict=True)]
        room -= GAP * (len(headers) - 1)
        if sum(found) > room:
            found[n:] = [max([body[i], *map(cell_len, headers[i].split())]) for i in range(n, len(headers))]
        while sum(found) > room and max(found[:n], default=0) > LEAST:
            found[found.index(max(found[:n]))] -= 1
        return found

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        """Rich's hook for what can be printed."""
        widths = self.widths(options.max_width)
        table = Table(
            box=None, header_style="bold", pad_edge=False, padding=(0, GAP, 0, 0),
            width=sum(widths) + GAP * (len(widths) - 1), title=Text(self.title) if self.title else None, title_justify="left", title_style="bold",
        )  # fmt: skip
        for i, header in enumerate([*self.names, *self.numbers]):
            name = i < len(self.names)
            justify = "left" if name else "right"
            table.add_column(Text(header), justify=justify, no_wrap=name, overflow="ellipsis", width=widths[i])
        for row in self.rows:
            table.add_row(*map(Text, row))
        yield table


def number(value: float | None, digits: int = 3) -> str:
    """A number for a table; an en dash where there is none."""
    return "–" if value is None else f"{value:z.{digits}f}"


def interval(low: float | None, high: float | None) -> str:
    """The ends of an interval for a table."""
    return f"{number(low, 2)} to {number(high, 2)}"
