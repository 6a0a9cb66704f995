"""Scores under several adapters in joint batches: contexts are tokenized once for all, and a batch goes on from one
adapter to the next. `score.score` with one adapter on at a time is the reference."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from peft import LoraConfig, PeftModel
from torch import Tensor

from bystander.core.records import Context
from bystander.lm.adapter_stack import ADAPTER, AdapterStack, StackShape, shape_of_adapter
from bystander.lm.adapters import rewrites_base, state_of
from bystander.lm.forward import run_cut
from bystander.lm.joint import PackedRows, joined
from bystander.lm.loaded import PACKED_APART, PACKED_CANARY, LoadedModel
from bystander.lm.packed import to
from bystander.lm.rows import Batch, Budget, Ints, Row
from bystander.lm.score import AHEAD, OptionScores, Queued, ScoreItem, collected, planned, reader, score
from bystander.lm.stacked import Laid, StackedForward, Tokens, why_no_grouped

SLOTS = 8  # adapters in a stack: more cost memory, and a batch seldom holds contexts of so many
Found = tuple[Path, Context, list[OptionScores]]


def score_adapters(
    loaded: LoadedModel, folders: Sequence[Path], contexts: Sequence[Context], items: Sequence[ScoreItem], *,
    token_budget: int | None = None,
) -> Iterator[Found]:  # fmt: skip
    """Score all items under each context with each adapter, adapter by adapter, in the given order; each is what
    `score` gives with that adapter on, but for the rounding of another batch.

    On a GPU plain LoRAs of one shape on a layer's seven maps go through in joint batches. Others, and all on a CPU, are
    scored one after another. Raises ModelError as `LoadedModel.adapter` and `score` do.
    """
    for some in (folders[i : i + SLOTS] for i in range(0, len(folders), SLOTS)):
        stack = stack_of(loaded, some) if len(some) > 1 and loaded.packed is not None else None
        if stack is not None:
            yield from _stacked(loaded, stack, some, contexts, items, token_budget)
            continue
        for folder in some:
            with loaded.adapter(folder) as on:
                for context, scores in score(on, contexts, items, token_budget=token_budget):
                    yield folder, context, scores


def stack_of(loaded: LoadedModel, folders: Sequence[Path]) -> AdapterStack | None:
    """The adapters side by side, each checked as when it is put on; None where they do not fit into one stack."""
    stack: AdapterStack | None = None
    for slot, folder in enumerate(folders):
        with loaded.adapter(folder) as on:
            shape = _shape(on)
            if shape is None or (stack is not None and shape != stack.shape):
                return None
            stack = stack or AdapterStack(shape, len(folders), loaded.device, loaded.dtype)
            stack.read(slot, cast(PeftModel, on.model))
    if stack is not None:
        stack.refresh()
    return stack


def _shape(on: LoadedModel) -> StackShape | None:
    """The shape of the adapter that is on, where its As and Bs are all that it changes and each map has the same scale."""
    peft = cast(PeftModel, on.model)
    plain = all(".lora_A." in name or ".lora_B." in name for name in state_of(peft))
    if on.packed is None or not plain or rewrites_base(cast(LoraConfig, peft.peft_config[ADAPTER])):
        return None
    for name, parameter in peft.named_parameters():
        parameter.requires_grad_(".lora_" in name)  # by which the shape knows them
    return replace(shape_of_adapter(peft), dropout=0.0)


def _stacked(
    loaded: LoadedModel, stack: AdapterStack, folders: Sequence[Path], contexts: Sequence[Context],
    items: Sequence[ScoreItem], token_budget: int | None,
) -> Iterator[Found]:  # fmt: skip
    budget = Budget.for_model(loaded, token_budget)
    once = list(planned(loaded, [(context, items) for context in contexts]))
    every = (((slot, one), rows) for slot in range(stack.slots) for one, rows in once)
    kind = stack_pass(loaded, stack)
    queued: deque[tuple[list[int], Queued]] = deque()

    def finished() -> Iterator[Found]:
        slots, own = queued.popleft()
        for slot, (context, scores) in zip(slots, collected(own, ()), strict=True):
            yield folders[slot], context, scores

    for group in joined(loaded, every, budget):
        slots, own = [slot for (slot, _), _ in group], [one for (_, one), _ in group]
        rows = [rows for _, rows in group]
        read = reader(loaded, [plan for _, plans in own for plan in plans])
        cut = StackedRows(loaded, kind, rows, slots)
        queued.append((slots, (own, run_cut(loaded, [row for each in rows for row in each], cut, budget, read))))
        if len(queued) > AHEAD[loaded.device.type]:
            yield from finished()
    while queued:
        yield from finished()


@dataclass(frozen=True, slots=True)
class StackPass:
    """A stack's forward pass; `looped`: the adapters' products are made one by one."""

    forward: StackedForward
    slots: int
    looped: bool


@torch.no_grad()
def stack_pass(loaded: LoadedModel, stack: AdapterStack) -> StackPass:
    """With grouped products where they run here and answer a canary as products in a loop do."""
    slow = StackPass(StackedForward(loaded.causal, stack, compile_layers=False), stack.slots, looped=True)
    if why_no_grouped(loaded.device, loaded.dtype, slow.forward.widths):
        return slow
    fast = StackPass(StackedForward(loaded.causal, stack, compile_layers=True), stack.slots, looped=False)
    ids = np.array(loaded.tokenizer(PACKED_CANARY, add_special_tokens=False)["input_ids"], dtype=np.int64)
    contexts = [[Row(ids, (), np.arange(len(ids)), "canary")]] * stack.slots
    states: list[Tensor] = []
    for kind in (fast, slow):
        rows = StackedRows(loaded, kind, contexts, range(stack.slots))
        states.append(rows.batch(rows.order).last_states(loaded).float().view(stack.slots, len(ids), -1))
    apart = (states[0] - states[1]).norm(dim=-1) / states[1].norm(dim=-1)
    return fast if float(apart.median(dim=1).values.max()) < PACKED_APART else slow


@dataclass(frozen=True, slots=True, kw_only=True)
class StackedBatch(Batch):
    """A batch that a stack's forward pass takes."""

    forward: StackedForward
    laid: Laid

    def last_states(self, loaded: LoadedModel) -> Tensor:
        """As `Batch`."""
        del loaded
        return self.forward.hidden(self.laid, training=False)


class StackedRows(PackedRows):
    """Contexts' rows, each context with the slot of its adapter, in the order of slots."""

    def __init__(
        self, loaded: LoadedModel, kind: StackPass, contexts: Sequence[Sequence[Row]], slots: Sequence[int]
    ) -> None:
        super().__init__(loaded, contexts)
        assert list(slots) == sorted(slots)
        self._kind = kind
        self._slot = np.array(slots)

    def batch(self, chosen: Ints) -> Batch:
        """As `PackedRows`, with whose each token and each wanted place is."""
        packed, wanted = self._laid(chosen)
        slot = self._slot[self._context[chosen]]
        places = np.array([len(self._rows[i].wanted) for i in chosen])
        laid = Laid(
            packed.ids, packed.positions, packed.bounds, self._whose(slot, self._costs(chosen)), wanted,
            self._whose(slot, places), packed.keys,
        )  # fmt: skip
        return StackedBatch(tuple(map(int, chosen)), {}, wanted, forward=self._kind.forward, laid=laid)

    def _whose(self, slot: Ints, counts: Ints) -> Tokens:
        each = np.zeros(self._kind.slots, dtype=np.int64)
        np.add.at(each, slot, counts)
        keys = torch.zeros(int(each.sum()), dtype=torch.int32, device=self._loaded.device)  # no dropout is drawn
        spans = tuple(map(int, each)) if self._kind.looped else None
        return Tokens(keys, to(np.cumsum(each).astype(np.int32), self._loaded.device), spans)
