"""The rows of a design as token ids with their loss masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bystander.core.errors import ModelError
from bystander.design.arms import Design
from bystander.lm.tokens import EndOfTurn, LossOn, RenderedRow, Tokenizer, render_row

SHOWN = 8  # rows that a finding names; the rest are counted


def named(rows: Sequence[str]) -> tuple[str, ...]:
    """The rows that a finding names, and how many more there are."""
    return tuple(rows[:SHOWN]) + ((f"... and {len(rows) - SHOWN} more",) if len(rows) > SHOWN else ())


def label(design: Design) -> str:
    """How a finding calls a design."""
    return f"{design.behavior}/{design.source}/{design.arm}"


@dataclass(frozen=True, slots=True)
class Rendered:
    """The rows of one design as token ids, in the design's order."""

    design: Design
    rows: tuple[RenderedRow, ...]


def render(design: Design, tokenizer: Tokenizer, *, loss: LossOn, end_of_turn: EndOfTurn) -> Rendered:
    """Every row of a design as token ids with its loss mask.

    Raises ModelError that counts the rows which cannot be rendered and names the first of each kind."""
    rows: list[RenderedRow] = []
    faults: dict[str, list[str]] = {}
    for row in design.rows:
        try:
            rows.append(
                render_row(
                    tokenizer, row.context, row.user, row.completion, marker=row.marker, loss=loss,
                    end_of_turn=end_of_turn,
                )
            )  # fmt: skip
        except ModelError as error:
            faults.setdefault(str(error), []).append(row.id)
    if faults:
        count = sum(map(len, faults.values()))
        shown = " ".join(f"{ids[0]}: {message}" for message, ids in list(faults.items())[:3])
        raise ModelError(f"{label(design)}: {count} of {len(design.rows)} rows cannot be rendered. {shown}")
    return Rendered(design, tuple(rows))
