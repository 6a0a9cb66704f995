"""The command that gives a run away: push."""

from __future__ import annotations

from typing import Annotated

import typer

from bystander.cli.app import RunArg, app
from bystander.cli.console import console


@app.command()
def push(
    run: RunArg,
    to: Annotated[str, typer.Option("--to", metavar="OWNER/NAME", help="A model and a dataset of that name.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show every file, send nothing.")] = False,
    public: Annotated[bool, typer.Option("--public", help="New repositories are private otherwise.")] = False,
) -> None:
    """A run's adapters (with cards), tables and report on the Hugging Face Hub."""
    from bystander.results.push import push as send
    from bystander.results.push import repositories

    repos = repositories(run, to)
    for repo in repos:
        sizes = repo.sizes()
        console.print(f"[bold]{repo.kind} {repo.id}[/]  {len(sizes)} files, {sum(sizes.values()) / 1e6:.2f} MB")
        for name, size in sizes.items():
            console.print(f"  {name}  {size:,} bytes", soft_wrap=True, markup=False)
    if dry_run:
        console.print("nothing was sent (--dry-run)")
        return
    for where in send(repos, private=not public):
        console.print(f"pushed: {where}", soft_wrap=True, markup=False)
