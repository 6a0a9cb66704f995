"""Progress on the terminal: one bar a cell, with items per second and the time that remains."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed else "", style="dim")


class TerminalBar:
    """A bar drawn by rich; off a terminal, one line a finished piece of work."""

    def __init__(self, console: Console, progress: Progress) -> None:
        self.console = console
        self.progress = progress
        self.task = None
        self.name, self.total, self.done = "", 0, 0

    def start(self, name: str, total: int) -> None:
        """Begin a bar; the one before it is finished."""
        if self.task is not None:
            self.progress.stop_task(self.task)
            self.progress.remove_task(self.task)
        self.name, self.total, self.done = name, total, 0
        self.task = self.progress.add_task(name, total=total, note="")

    def advance(self, by: int = 1, note: str = "") -> None:
        """Move the bar on."""
        self.done += by
        if self.task is not None:
            self.progress.update(self.task, advance=by, note=note)
            if self.done >= self.total:
                task = next(t for t in self.progress.tasks if t.id == self.task)
                self.console.print(f"  [green]✓[/] {self.name}  [dim]{self.total} in {task.elapsed or 0:.1f} s[/]")


@contextmanager
def terminal_bar(console: Console) -> Generator[TerminalBar]:
    """A terminal bar, cleared away at the end."""
    columns = (
        TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn(compact=True),
        TextColumn("[dim]{task.fields[note]}"),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as progress:
        yield TerminalBar(console, progress)
