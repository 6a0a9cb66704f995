"""Which forward pass a group of trainings takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from bystander.lm.adapter_stack import AdapterStack
from bystander.lm.loaded import PACKED_APART, PACKED_CANARY, LoadedModel
from bystander.lm.stacked import StackedForward, why_no_grouped
from bystander.lm.tokens import RenderedRow
from bystander.train.many_graphs import GraphedPasses
from bystander.train.many_packed import PackedPasses, keyed
from bystander.train.many_plain import PlainPasses, Work
from bystander.train.many_room import Room

# By how much the canary's adapters move a map's output, in units of its input. Much more, and a deep model passes bfloat16's
# rounding on enlarged: 28 layers of random weights were 0.40 from float32 at 3.2, and are 0.026 at 0.25, where
# another slot's adapter is 1.3 away.
CANARY_SHARE = 0.25


class Passes(Protocol):
    """What computes the gradients of one step. `name` says how, and why not faster."""

    name: str

    def run(self, works: Sequence[Work]) -> Tensor:
        """Mean loss of each slot's batch [slots], 0 where there is none; the stack then holds the gradients."""
        ...

    def release(self) -> None:
        """Give back what memory is held between steps."""
        ...


def make_passes(loaded: LoadedModel, stack: AdapterStack, room: Room) -> Passes:
    """Packed passes with grouped products where they run here and answer a canary as products in a loop do, packed ones
    with products in a loop where the grouped do not fit; plain ones where the model has no packed pass."""
    plain = PlainPasses(loaded, stack, room.micro_tokens, room.pass_tokens)
    if not room.packed:
        return _named(plain, f"plain: {loaded.plain_because}")
    try:
        slow = PackedPasses(
            loaded, stack, StackedForward(loaded.causal, stack, compile_layers=False), room.pass_tokens, looped=True
        )
        fast = PackedPasses(loaded, stack, StackedForward(loaded.causal, stack, compile_layers=True), room.pass_tokens)
    except ValueError as error:
        return _named(plain, f"plain: {error}")
    reason = why_no_grouped(loaded.device, loaded.dtype, slow.forward.widths)
    if reason:
        return _named(slow, f"packed, products in a loop: {reason}")
    apart = canary_distance(loaded, stack, fast, slow)
    if not apart < PACKED_APART:
        return _named(slow, f"packed, products in a loop: the grouped products differ from them by {apart:.2g}")
    if room.graphs:
        return GraphedPasses(loaded, stack, fast.forward, room.pass_tokens)
    return _named(fast, "packed, grouped products")


P = TypeVar("P", PlainPasses, PackedPasses)


def _named(passes: P, name: str) -> P:
    passes.name = name
    return passes


@torch.no_grad()
def canary_distance(loaded: LoadedModel, stack: AdapterStack, one: PackedPasses, other: PackedPasses) -> float:
    """Relative distance of two passes' last hidden states, the median over a text's tokens, the largest over slots; the
    stack, which must be unused, holds random adapters meanwhile. No number is `inf`."""
    draws = torch.Generator(loaded.device).manual_seed(0)
    fill_at_random(stack, draws)
    ids: list[int] = loaded.tokenizer(PACKED_CANARY, add_special_tokens=False)["input_ids"]
    row = RenderedRow(ids, [True] * len(ids), len(ids) - 1, 1, 0)
    works = [Work(slot, [row], len(ids), slot, 0) for slot in range(stack.slots)]
    rows = {work.slot: keyed(work) for work in works}
    states: list[Tensor] = []
    for passes in (one, other):
        batch = passes.batch(works, rows)
        found = passes.forward.hidden(batch.laid, training=False).float()
        states.append(torch.stack([found[own.nonzero()[:, 0]] for own in batch.own]))
    stack.working.zero_()
    apart = (states[0] - states[1]).norm(dim=-1) / states[1].norm(dim=-1)
    worst = float(apart.median(dim=1).values.max())
    return worst if np.isfinite(worst) else float("inf")


def fill_at_random(stack: AdapterStack, draws: torch.Generator) -> None:
    """Random adapters in `stack.working`, which move each map's output by `CANARY_SHARE`."""
    for place in stack.shape.places:
        inputs = place.shape[1]  # of B: the rank
        std = CANARY_SHARE / (stack.shape.scale * inputs**0.5) if place.part == "B" else inputs**-0.5
        stack.working[:, place.offset : place.offset + place.size].normal_(0.0, std, generator=draws)
