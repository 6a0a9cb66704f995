"""From the rows of a design to token ids with a loss mask."""

from __future__ import annotations

from dataclasses import dataclass

from bystander.design.arms import Design
from bystander.lm.tokens import EndOfTurn, LossOn, RenderedRow, Tokenizer, render_row


@dataclass(frozen=True, slots=True)
class Rendered:
    """The rows of one design as token ids, in the design's order."""

    design: Design
    rows: tuple[RenderedRow, ...]


def render(design: Design, tokenizer: Tokenizer, *, loss: LossOn, end_of_turn: EndOfTurn) -> Rendered:
    """Every row of a design as token ids with its loss mask. Raises ModelError for a row that cannot be rendered."""
    return Rendered(
        design,
        tuple(
            render_row(
                tokenizer,
                row.context,
                row.user,
                row.completion,
                marker=row.marker,
                loss=loss,
                end_of_turn=end_of_turn,
            )
            for row in design.rows
        ),
    )
