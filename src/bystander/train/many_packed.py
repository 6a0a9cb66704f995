"""One step of several trainings in packed forward passes: rows end to end, sorted by adapter. `many_plain` is its
reference.

A step's rows go through as few passes as memory allows, each with an even share of every training's. Which pass a row
is in, and what else is in it, changes nothing but rounding: dropout is decided by the training's seed, the step, and
the token's place in the training's own batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from bystander.core.errors import ModelError
from bystander.core.hashing import seed_for
from bystander.lm.adapter_stack import AdapterStack
from bystander.lm.attention import Bounds
from bystander.lm.loaded import LoadedModel
from bystander.lm.packed import to
from bystander.lm.stacked import Laid, StackedForward, Tokens
from bystander.train.many_plain import Work


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a pass is filled up to, so that few shapes occur: multiples of `tokens`, of `places` in the loss and of
    `sequences`; `longest`: the longest sequence is called a multiple of so many tokens."""

    tokens: int = 128
    places: int = 64
    sequences: int = 1
    longest: int = 128


@dataclass(frozen=True, slots=True)
class _Row:
    """A row and the keys of its tokens (`Tokens.keys`)."""

    ids: NDArray[np.int64]
    loss: NDArray[np.bool_]
    keys: NDArray[np.int32]


@dataclass(slots=True)
class Batch:
    """A pass: sequences, the target at each wanted place, whose place it is [slots, wanted] (none's: a filled-up one),
    and the weight of a loss token in the mean of each slot's batch [slots]."""

    laid: Laid
    targets: Tensor
    own: Tensor
    weights: Tensor

    @property
    def tensors(self) -> list[Tensor]:
        """All that a pass reads beside weights; the sequences are the same for queries and keys."""
        laid = self.laid
        return [
            laid.ids, laid.positions, laid.segments.queries, laid.tokens.keys, laid.tokens.ends, laid.places,
            laid.wanted.keys, laid.wanted.ends, self.targets, self.own, self.weights,
        ]  # fmt: skip

    @property
    def sizes(self) -> tuple[int, ...]:
        """What two passes must share to be one graph."""
        return (self.laid.segments.longest_query, *(len(tensor) for tensor in self.tensors), self.own.shape[1])

    def clone(self) -> Batch:
        """The same in tensors of its own."""
        laid = self.laid
        starts = laid.segments.queries.clone()
        return Batch(
            Laid(
                ids=laid.ids.clone(),
                positions=laid.positions.clone(),
                segments=Bounds(starts, starts, laid.segments.longest_query, laid.segments.longest_key),
                tokens=Tokens(laid.tokens.keys.clone(), laid.tokens.ends.clone(), laid.tokens.spans),
                places=laid.places.clone(),
                wanted=Tokens(laid.wanted.keys.clone(), laid.wanted.ends.clone(), laid.wanted.spans),
            ),
            self.targets.clone(),
            self.own.clone(),
            self.weights.clone(),
        )


class PackedPasses:
    """The gradients of one step, by packed passes of about `pass_tokens` tokens at most (a row each may exceed)."""

    def __init__(
        self, loaded: LoadedModel, stack: AdapterStack, forward: StackedForward, pass_tokens: int,
        *, looped: bool = False, sizes: Sizes | None = None,
    ) -> None:  # fmt: skip
        """`looped`: the adapters' products one by one, where torch's grouped product does not fit."""
        self.name = "packed"
        self._loaded = loaded
        self._stack = stack
        self.forward = forward
        self._pass_tokens = pass_tokens
        self._looped = looped
        self._sizes = sizes or Sizes()

    def run(self, works: Sequence[Work]) -> Tensor:
        """Mean loss of each slot's batch [slots], 0 where there is none; the stack then holds the gradients.

        Raises ModelError where memory runs out however small the passes are.
        """
        rows = {work.slot: keyed(work) for work in works}
        total = sum(len(row.ids) for own in rows.values() for row in own)
        passes = math.ceil(total / self._pass_tokens)
        most = max(map(len, rows.values()))
        while True:
            done = self._attempt(works, rows, min(passes, most))
            if done is not None:
                return done
            if passes >= most:
                raise ModelError(
                    f"a step of {len(works)} trainings does not fit into memory, not even a row of each at a time. "
                    "Train fewer at once."
                )
            passes *= 2
            self._pass_tokens = math.ceil(total / passes)

    def release(self) -> None:
        """Give the memory that is held for the next pass back, since somebody else is to use the device."""
        if self._loaded.device.type == "cuda":
            torch.cuda.empty_cache()

    def _attempt(self, works: Sequence[Work], rows: dict[int, list[_Row]], passes: int) -> Tensor | None:
        """One step in so many passes, or None where memory ran out."""
        try:
            batches = [
                self.batch(works, {slot: cut(own, passes)[i] for slot, own in rows.items()}) for i in range(passes)
            ]
            return self._compute(batches)
        except torch.OutOfMemoryError:
            pass
        self.release()
        return None

    def _compute(self, batches: Sequence[Batch]) -> Tensor:
        self._stack.gradients.zero_()
        losses = torch.zeros(self._stack.slots, device=self._loaded.device)
        for batch in batches:
            losses += self.differentiate(batch)
        return losses

    def differentiate(self, batch: Batch) -> Tensor:
        """Each slot's part of its mean loss [slots]; its gradients are added to the stack's. No host wait."""
        hidden = self.forward.hidden(batch.laid)
        each = F.cross_entropy(self._loaded.head(hidden).float(), batch.targets, reduction="none")
        # Not a product with zeros, since a NaN of one training must not reach another's loss; nor `where`, which brings
        # its 0 from the host and waits.
        losses = each.expand(batch.own.shape).masked_fill(~batch.own, 0.0).sum(1) * batch.weights
        gradients = torch.autograd.grad(losses.sum(), self.forward.leaves)
        for total, gradient in zip(self.forward.leaf_gradients, gradients, strict=True):
            total.add_(gradient)
        return losses.detach()

    def batch(self, works: Sequence[Work], rows: dict[int, list[_Row]]) -> Batch:
        """Rows of each slot as one pass.

        Behind each slot's rows comes one token that nothing reads, with one place that counts for nothing, so that no
        group of a product is empty; the last slot gets as many as fill the pass up.
        """
        laid = _Layout(self._stack.slots)
        for slot in range(self._stack.slots):
            for row in rows.get(slot, ()):
                laid.add(slot, row)
            laid.fill(slot, 1, 1)
        laid.round_up(self._sizes)
        weights = np.zeros(self._stack.slots, dtype=np.float32)
        for work in works:
            weights[work.slot] = work.weight
        return laid.batch(weights, self._loaded.device, self._sizes, looped=self._looped)


class _Layout:
    """A pass in the making: sequences slot after slot."""

    def __init__(self, slots: int) -> None:
        self._ids: list[NDArray[np.int64]] = []
        self._keys: list[NDArray[np.int32]] = []
        self._lengths: list[int] = []
        self._tokens = np.zeros(slots, dtype=np.int64)
        self._places: list[NDArray[np.int64]] = []
        self._targets: list[NDArray[np.int64]] = []
        self._counts = np.zeros(slots, dtype=np.int64)
        self._real: list[NDArray[np.int64]] = []  # per place its slot, -1: counts for nothing

    def add(self, slot: int, row: _Row) -> None:
        """A row; its first token is predicted by nothing."""
        targets = 1 + np.flatnonzero(row.loss[1:])
        self._sequence(slot, row.ids, row.keys)
        self._wanted(slot, targets - 1 - len(row.ids), row.ids[targets], slot)

    def fill(self, slot: int, tokens: int, places: int) -> None:
        """So many tokens and places that count for nothing; the places are at the last token."""
        if tokens:
            self._sequence(slot, np.zeros(tokens, dtype=np.int64), np.zeros(tokens, dtype=np.int32))
        self._wanted(slot, np.full(places, -1), np.zeros(places, dtype=np.int64), -1)

    def round_up(self, sizes: Sizes) -> None:
        """Fill up to multiples of `sizes`, in the last slot."""
        last = len(self._tokens) - 1
        missing = int(-self._tokens.sum() % sizes.tokens)
        for start in range(0, missing, sizes.longest):
            self.fill(last, min(sizes.longest, missing - start), 0)
        self.fill(last, 0, int(-self._counts.sum() % sizes.places))

    def batch(self, weights: NDArray[np.float32], device: torch.device, sizes: Sizes, *, looped: bool) -> Batch:
        """The pass as tensors on the device."""
        lengths = np.array(self._lengths)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        empty = np.full(-len(lengths) % sizes.sequences, starts[-1])
        offsets = to(np.concatenate([starts, empty]).astype(np.int32), device)
        longest = math.ceil(int(lengths.max()) / sizes.longest) * sizes.longest
        real = np.concatenate(self._real)
        return Batch(
            Laid(
                ids=to(np.concatenate(self._ids), device),
                positions=to(np.concatenate([np.arange(n) for n in lengths]), device),
                segments=Bounds(offsets, offsets, longest, longest),
                tokens=_whose(np.concatenate(self._keys), self._tokens, device, looped),
                places=to(np.concatenate(self._places), device),
                wanted=_whose(np.concatenate(self._keys)[np.concatenate(self._places)], self._counts, device, looped),
            ),
            targets=to(np.concatenate(self._targets), device),
            own=to((real == np.arange(len(weights))[:, None]).view(np.uint8), device).bool(),
            weights=_floats(weights, device),
        )

    def _sequence(self, slot: int, ids: NDArray[np.int64], keys: NDArray[np.int32]) -> None:
        self._ids.append(ids)
        self._keys.append(keys)
        self._lengths.append(len(ids))
        self._tokens[slot] += len(ids)

    def _wanted(self, slot: int, behind: NDArray[np.int64], targets: NDArray[np.int64], real: int) -> None:
        """Places counted from the end of what is laid."""
        self._places.append(int(self._tokens.sum()) + behind)
        self._targets.append(targets)
        self._counts[slot] += len(behind)
        self._real.append(np.full(len(behind), real))


def _whose(keys: NDArray[np.int32], counts: NDArray[np.int64], device: torch.device, looped: bool) -> Tokens:
    spans = tuple(map(int, counts)) if looped else None
    return Tokens(to(keys, device), to(np.cumsum(counts).astype(np.int32), device), spans)


def _floats(array: NDArray[np.float32], device: torch.device) -> Tensor:
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def keyed(work: Work) -> list[_Row]:
    """A batch's rows as arrays, with a key for each token from the training's seed, the step, and the
    token's number in the batch."""
    seed = np.uint32(seed_for(work.seed, "step", work.step) & 0xFFFFFFFF)
    number = 0
    rows: list[_Row] = []
    for row in work.rows:
        numbers = np.arange(number, number + len(row.ids), dtype=np.uint32)
        number += len(row.ids)
        keys = _mix(_mix(numbers * np.uint32(0x9E3779B9)) ^ seed).view(np.int32)
        rows.append(_Row(np.array(row.ids, dtype=np.int64), np.array(row.loss, dtype=np.bool_), keys))
    return rows


def _mix(bits: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """`lm.stacked.mix` for unsigned integers."""
    bits = (bits ^ (bits >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    bits = (bits ^ (bits >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return bits ^ (bits >> np.uint32(16))


def cut(rows: Sequence[_Row], parts: int) -> list[list[_Row]]:
    """Rows in their order as so many parts with about as many tokens each; some may be empty."""
    lengths = np.array([len(row.ids) for row in rows])
    middles = np.cumsum(lengths) - lengths / 2
    index = np.minimum((middles / lengths.sum() * parts).astype(int), parts - 1)
    return [[row for row, own in zip(rows, index, strict=True) if own == part] for part in range(parts)]
