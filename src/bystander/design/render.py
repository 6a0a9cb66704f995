"""The rows of a design as token ids with their loss masks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bystander.core.errors import ModelError
from bystander.core.records import Context, Role
from bystander.design.arms import Design
from bystander.lm.tokens import EndOfTurn, LossOn, RenderedRow, Tokenizer, render_prompt, render_row

ANY_USER = "What is rain?"  # contexts are compared by how they render around it
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


def context_roles(design: Design, tokenizer: Tokenizer, contexts: Sequence[Context]) -> dict[tuple[str, str], Role]:
    """The role of each context (kind, name) in one training, by its rendered tokens: one that renders as rows of the
    training do was trained on, whatever it is called, and has their role; the others are held out."""
    return roles_by_tokens(
        [(c, row.role) for row in design.rows for c in (row.context, row.asked_under)], tokenizer, contexts
    )


def roles_by_tokens(
    known: Iterable[tuple[Context, Role]], tokenizer: Tokenizer, contexts: Sequence[Context]
) -> dict[tuple[str, str], Role]:
    """(kind, name) -> the role of each context: of several `known` ones that render alike the strongest; held-out for one
    that renders as none of them."""
    rank: dict[Role, int] = {"source": 0, "negative": 1, "mixed": 2, "held-out": 3}
    trained: dict[tuple[int, ...], Role] = {}
    for context, role in dict.fromkeys(known):
        ids = tuple(render_prompt(tokenizer, context, ANY_USER))
        trained[ids] = min(role, trained.get(ids, "held-out"), key=lambda role: rank[role])
    return {(c.kind, c.name): trained.get(tuple(render_prompt(tokenizer, c, ANY_USER)), "held-out") for c in contexts}


def render(design: Design, tokenizer: Tokenizer, *, loss: LossOn, end_of_turn: EndOfTurn) -> Rendered:
    """Every row of a design as token ids with its loss mask.

    Raises ModelError that counts the rows which cannot be rendered and names the first of each kind."""
    rows: list[RenderedRow] = []
    faults: dict[str, list[str]] = {}
    for row in design.rows:
        try:
            rows.append(
                render_row(
                    tokenizer, row.asked_under, row.user, row.completion, marker=row.marker, loss=loss,
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
