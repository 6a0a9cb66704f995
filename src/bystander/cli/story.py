"""What a terminal shows of a finished run: the numbers where they are asked for, and last the few lines that a person reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bystander.cli.console import console
from bystander.cli.result_tables import control_lines, headline_table
from bystander.report.story import HEAD

if TYPE_CHECKING:
    from bystander.analysis import Analysis
    from bystander.results.results import Results


def print_story(results: Results, page: Path | None, *, verbose: bool) -> None:
    """The story in at most eight lines; before it, with `verbose`, every number behind it."""
    if verbose:
        print_numbers(results.analysis)
        console.print()
    for line in results.story(page):
        head, text = line[:HEAD], line[HEAD:]
        console.print(head, style="bold", end="", markup=False)
        console.print(text, soft_wrap=True, markup=False)


def print_numbers(analysis: Analysis) -> None:
    """The headline table, what must not move, each verdict with the numbers that it rests on, and the analysis' notes."""
    headline_table(analysis).print()
    lines = control_lines(analysis)
    for verdict in analysis.verdicts:
        lines.append(f"hypothesis {verdict.hypothesis}: {verdict.outcome}, {verdict.reason}")
        for name, value in verdict.numbers.items():
            lines.append(f"  {name}: {f'{value:.4g}' if isinstance(value, float) else value}")
    for line in (*lines, *analysis.notes):
        console.print(line, soft_wrap=True, markup=False)
