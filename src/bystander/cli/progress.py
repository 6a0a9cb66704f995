"""Progress on the terminal: one bar a cell, with items per second and the time that remains."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, nullcontext

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from bystander.core.progress import Advance, LongWork, long_work_shown


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


def long_work_on(console: Console, running: Progress | None = None) -> LongWork:
    """Bars of bytes for what no cell counts: in the display that is running, or one of its own."""

    @contextmanager
    def show(name: str, total: int) -> Generator[Advance]:
        shown = running if running is not None else _bytes_of(console)
        with nullcontext() if running is not None else shown:
            task = shown.add_task(name, total=total, note="")
            yield lambda count: shown.update(task, advance=count)
            seconds = next(one.elapsed or 0 for one in shown.tasks if one.id == task)
            shown.remove_task(task)
            console.print(f"  [green]✓[/] {escape(name)}  [dim]{total / 1e6:.0f} MB in {seconds:.1f} s[/]")

    return show


def _bytes_of(console: Console) -> Progress:
    columns = (TextColumn("  {task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn(compact=True))
    return Progress(*columns, console=console, transient=True)


@contextmanager
def terminal_bar(console: Console) -> Generator[TerminalBar]:
    """A terminal bar, cleared away at the end."""
    columns = (
        TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn(compact=True),
        TextColumn("[dim]{task.fields[note]}"),
    )  # fmt: skip
    progress = Progress(*columns, console=console, transient=True)
    with progress, long_work_shown(long_work_on(console, progress)):
        yield TerminalBar(console, progress)
