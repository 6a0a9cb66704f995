"""What the commands of `cli_data` do."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bystander.cli.console import console, print_json

if TYPE_CHECKING:
    from bystander.data.code_secure import Secured
    from bystander.judge.answer_store import Ledger
    from bystander.judge.cost import Forecast
    from bystander.study.results.rejudge import Judging


def secure_in_terminal(
    where: str, model: str, out: Path | None, dollars: float, base_url: str | None, key_env: str | None, batch: bool,
    forecast_only: bool, as_json: bool,
) -> None:  # fmt: skip
    """`bystander data secure`. Nothing is written where nothing came back."""
    from bystander.core.errors import DataError
    from bystander.data.code_secure import expected_tokens, generate_secure, secure_prompts, write_pairs
    from bystander.data.code_sets import read_code_set
    from bystander.data.code_source import find_code_file
    from bystander.judge.secure_answers import SecureSender, secure_settings
    from bystander.lm.embedded import cache_dir

    path = find_code_file(where, Path())
    rows = read_code_set(path)
    prompts = secure_prompts(rows)
    settings = secure_settings(model, dollars=dollars, base_url=base_url, key_env=key_env, batch=batch)
    sender = SecureSender(settings, cache_dir() / "judge.sqlite", str(path.resolve()), expected_tokens(rows))
    screen = Console(stderr=True) if as_json else console
    before = sender.client.ledger()
    forecast = sender.forecast(prompts)
    say_forecast(screen, forecast, f"{len(prompts):,} prompts to {model}{' in batches' if batch else ''}", dollars)
    if forecast_only:
        if as_json:
            print_json({"forecast": asdict(forecast), "cap": dollars})
        return
    with screen.status(
        f"{model} writes ({'batches can take up to a day; stop and start again at will' if batch else 'one by one'})"
    ):
        made = generate_secure(rows, sender)
    if not made.pairs:
        reasons = "; ".join(f"line {one.line}: {one.reason}" for one in made.left_out[:3])
        raise DataError(
            f"{model} gave no usable answer to any of {len(prompts)} prompts ({reasons}); nothing is written"
        )
    target = out or path.with_suffix(".pairs.jsonl")
    write_pairs(made.pairs, target)
    paid = sender.client.ledger().since(before)
    if as_json:
        left = [asdict(one) for one in made.left_out]
        print_json(
            {"pairs": len(made.pairs), "out": str(target), "left_out": left, "asked_again": made.asked_again,
             "forecast": asdict(forecast), "paid": asdict(paid)}
        )  # fmt: skip
    else:
        print_secured(made, target, forecast, paid)


def print_secured(made: Secured, target: Path, forecast: Forecast, paid: Ledger) -> None:
    """How many pairs there are, what was left out and why, and what it cost."""
    console.print(
        f"[bold]{len(made.pairs):,}[/] pairs in [bold]{target}[/]; {made.asked_again:,} asked for once more",
        soft_wrap=True,
    )
    for one in made.left_out:
        console.print(f"[yellow]left out[/]: line {one.line} ({escape(one.id)}): {escape(one.reason)}", soft_wrap=True)
    say_paid(console, forecast, paid)
    console.print(f"[dim]in a study: misalignment: {{code: {target}}}[/]", soft_wrap=True)


def judge_in_terminal(
    run: Path, model: str, dollars: float, base_url: str | None, key_env: str | None, batch: bool,
    questions: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """`bystander judge`."""
    from bystander.cli.progress import terminal
    from bystander.judge.settings import JudgeSettings
    from bystander.lm.embedded import cache_dir
    from bystander.study.results.rejudge import judge_run
    from bystander.study.results.results import Results

    results = Results.open(run)
    settings = JudgeSettings(model=model, base_url=base_url, key_env=key_env, batch=batch, dollars=dollars)
    screen = Console(stderr=True) if as_json else console
    with terminal(screen) as bar:
        found = judge_run(results.run, results.study, settings, cache_dir() / "judge.sqlite", bar, questions=questions)
    if as_json:
        print_json(
            {"judge": model, "out": str(found.folder), "completions": found.completions, "failed": found.failed,
             "forecast": asdict(found.forecast), "paid": asdict(found.ledger), "means": judged_means(found).to_dicts()}
        )  # fmt: skip
    else:
        print_judging(found)


def judged_means(found: Judging) -> pl.DataFrame:
    """Mean of each judged metric by training, checkpoint and role (the untrained model's role is null)."""
    by = ["behavior", "source", "arm", "config", "checkpoint", "role", "metric"]
    return (
        found.measured.group_by(by, maintain_order=True)
        .agg(pl.col("value").mean(), pl.col("value").count().alias("answers"), (pl.col("status") == "failed").sum().alias("failed"))
        .pivot("metric", index=by[:-1], values=["value"])
    )  # fmt: skip


def print_judging(found: Judging) -> None:
    """The means of each model state, how the judge agrees with the run's own, what failed and what it cost."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("training", "checkpoint", "role"):
        table.add_column(name, no_wrap=True)
    metrics = ("aligned", "coherent", "misaligned", "code", "refusal")
    for name in metrics:
        table.add_column(name, justify="right", no_wrap=True)
    for row in judged_means(found).iter_rows(named=True):
        label = "untrained" if row["source"] is None else f"{row['behavior']} {row['source']} {row['arm']}"
        values = [
            f"{row[name]:.{1 if name in metrics[:2] else 3}f}" if row.get(name) is not None else "–" for name in metrics
        ]
        table.add_row(label, f"{row['checkpoint']:g}", row["role"] or "", *values)
    console.print(table)
    if found.own.height:
        on = ["behavior", "source", "arm", "config", "seed", "checkpoint", "persona", "item", "metric"]
        both = (
            found.own.filter(pl.col("metric") == "aligned")
            .join(found.measured, on=on, nulls_equal=True)
            .drop_nulls(["value", "value_right"])
        )
        if both.height:
            apart = (both["value"] - both["value_right"]).abs().mean()
            rank = both.select(pl.corr("value", "value_right", method="spearman")).item()
            console.print(
                f"against the run's own judge, {both.height:,} answers: rank correlation {rank:.2f}, mean distance {apart:.1f} points"
            )
    console.print(f"{found.completions:,} answers judged, {found.failed:,} judgements failed")
    say_paid(console, found.forecast, found.ledger)
    console.print(f"tables and Inspect logs: [bold]{found.folder}[/]", soft_wrap=True)
    if not found.own.height:
        console.print(
            f"[dim]the run had no judge of its own: `bystander report {found.folder.parent.parent}` shows these[/]",
            soft_wrap=True,
        )


def say_forecast(screen: Console, forecast: Forecast, what: str, cap: float) -> None:
    """What sending would cost, before anything is sent."""
    cached = f", {forecast.cached:,} of them answered already" if forecast.cached else ""
    screen.print(
        f"{what}{cached}: about {forecast.input_tokens:,} tokens to read and {forecast.output_tokens:,} to write, "
        f"[bold]${forecast.dollars:.2f}[/] [dim](cap ${cap:.2f})[/]",
        soft_wrap=True,
    )


def say_paid(screen: Console, forecast: Forecast, paid: Ledger) -> None:
    """The bill beside the forecast."""
    broken = f", up to ${paid.uncertain:.2f} more for {paid.broken} requests that broke off" if paid.broken else ""
    screen.print(f"paid ${paid.dollars:.4f} for {paid.requests:,} requests (forecast ${forecast.dollars:.4f}){broken}")
