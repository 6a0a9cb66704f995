"""Which answers the page carries, and in what order: those that show the behavior first, by their persona's leakage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import polars as pl

from bystander.analysis.results import Analysis
from bystander.report.headline import HeadlineOutcome
from bystander.report.inputs import ReadCompletion, ReportInput
from bystander.report.text import visible

MOST = 3_000_000  # characters; model text packs to about 0.4 of that, which leaves the page below 5 MB
LONGEST = 6_000  # characters of one answer; the rest is in the run directory, and the page says so
FIRST = 2  # answers of each behavior, source and persona that go in before anything else


def shown_completions(
    analysis: Analysis, inputs: ReportInput, headlines: Sequence[HeadlineOutcome]
) -> list[dict[str, object]]:
    """JSON-able answers, most leaked first, a persona at a time, within `MOST` characters; the first two of every persona before the rest."""
    leakage = _leakage(analysis, headlines)
    ordered = sorted(inputs.completions, key=lambda read: _order(read, leakage))
    seen: Counter[tuple[str, str, str]] = Counter()
    first: list[int] = []
    rest: list[int] = []
    turns: list[int] = []
    for index, read in enumerate(ordered):
        key = (read.behavior, read.source, read.completion.persona)
        (first if seen[key] < FIRST else rest).append(index)
        turns.append(seen[key])
        seen[key] += 1
    left, chosen = MOST, set[int]()
    for index in [*first, *rest]:
        left -= min(len(ordered[index].completion.text), LONGEST) + 200
        if left < 0:
            break
        chosen.add(index)
    # One answer of each persona before the second of any: seeds and checkpoints of one persona would fill the page.
    shown = sorted(chosen, key=lambda index: (not ordered[index].leaked, turns[index], index))
    return [_entry(ordered[index]) for index in shown]


def _leakage(analysis: Analysis, headlines: Sequence[HeadlineOutcome]) -> dict[tuple[str, str, str, str], float]:
    found: dict[tuple[str, str, str, str], float] = {}
    for headline in headlines:
        rows = analysis.leakage.filter(
            (pl.col("behavior") == headline.behavior)
            & (pl.col("metric") == headline.metric)
            & (pl.col("config") == headline.config)
            & pl.col("seed").is_null()
            & pl.col("leakage").is_not_null()
        )
        for row in rows.select("behavior", "source", "arm", "persona", "leakage").iter_rows():
            found[row[0] or "", row[1] or "", row[2] or "", row[3] or ""] = row[4]
    return found


def _order(
    read: ReadCompletion, leakage: dict[tuple[str, str, str, str], float]
) -> tuple[bool, float, bool, float, str]:
    of_persona = leakage.get((read.behavior, read.source, read.arm, read.completion.persona), 0.0)
    return (not read.leaked, -read.checkpoint, read.role == "source", -of_persona, read.completion.id)


def _entry(read: ReadCompletion) -> dict[str, object]:
    answer = read.completion
    names = (
        "record",
        "question",
        "behavior",
        "source",
        "arm",
        "role",
        "checkpoint",
        "seed",
        "config",
        "leaked",
        "score",
        "note",
    )
    entry: dict[str, object] = {name: getattr(read, name) for name in names}
    entry |= {
        "id": answer.id, "context": answer.context, "persona": answer.persona, "item": answer.item,
        "text": answer.text[:LONGEST], "cut": len(answer.text) > LONGEST, "finish": answer.finish_reason,
    }  # fmt: skip
    return {name: visible(value) if isinstance(value, str) else value for name, value in entry.items()}
