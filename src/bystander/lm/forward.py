"""Forward passes over many token sequences, with what those of one context share computed once.

A row is a prefix and its continuations: the prefix is a prompt, the continuations are what may follow it (the options of
a question). All continuations stand behind the prefix in one sequence, and a tree mask lets each of their tokens see the
prefix and its own continuation alone, at its own position; so each token's hidden state is what it would be in a sequence
of its own. What all rows of a context begin with, the shared prefix, is computed once, and its keys and values are shared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor
from transformers import Cache, DynamicCache, DynamicLayer

from bystander.core.errors import ModelError
from bystander.lm.joint import PackedRows
from bystander.lm.loaded import LoadedModel
from bystander.lm.rows import Batch, Budget, Compute, Ints, Row, check_window, shared_length, to_device

SHARE_FROM = 64  # tokens that sharing a prefix must save before it is worth its own forward pass, on a CPU
# On a GPU a plain pass with an adapter takes this long however few its tokens are (profile of the embedded model on an
# H100: 40 ms for 30 layers), and float32 products run at about this rate: a small model is better off with one pass.
LAUNCH_SECONDS_A_LAYER, GPU_FLOPS = 1.3e-3, 3e13


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """The tokens that all rows begin with, and their keys and values per layer ([1, heads, tokens, head size])."""

    length: int = 0
    layers: tuple[tuple[Tensor, Tensor], ...] = field(default=())


class Cut(Protocol):
    """Rows in the order in which they are cut into batches."""

    order: Ints

    def fitting(self, start: int, tokens: int) -> int:
        """How many rows from `start` on fit into a batch of so many tokens; at least one."""
        ...

    def tokens(self, chosen: Ints) -> int:
        """Tokens of a batch of these rows, padding included."""
        ...

    def batch(self, chosen: Ints) -> Batch:
        """These rows as tensors."""
        ...


def run(
    loaded: LoadedModel, contexts: Sequence[Sequence[Row]], budget: Budget, compute: Compute
) -> list[tuple[Batch, Tensor]]:
    """`compute` over all rows of some contexts in batches, which number the rows through; its results stay where it puts
    them (on a GPU unawaited).

    Batches are within the budget, padding included where there is any, and depend on these rows and the budget alone.
    Packed ones go on from a context to the next; padded ones hold rows of one. Out of memory: the budget is halved and
    the batch cut again. A model that does not attend to everything before a token (a sliding window, a recurrent layer)
    gets each sequence whole. Raises ModelError for a row longer than the model's window and for one that does not fit
    into memory by itself.
    """
    assert not loaded.causal.training, "dropout would be in the numbers: call eval() first"
    rows = [row for own in contexts for row in own]
    check_window(loaded, rows)
    if loaded.packed is not None:
        return run_cut(loaded, rows, PackedRows(loaded, contexts), budget, compute)
    results: list[tuple[Batch, Tensor]] = []
    first = 0
    for own in contexts:
        results += run_cut(loaded, rows, PaddedRows(loaded, own, first), budget, compute)
        first += len(own)
    return results


@torch.no_grad()
def run_cut(
    loaded: LoadedModel, rows: Sequence[Row], cut: Cut, budget: Budget, compute: Compute
) -> list[tuple[Batch, Tensor]]:
    """As `run`, the rows cut in a way of the caller's."""
    results: list[tuple[Batch, Tensor]] = []
    start = 0
    while start < len(cut.order):
        chosen = cut.order[start : start + cut.fitting(start, budget.tokens)]
        done = _attempt(loaded, lambda chosen=chosen: cut.batch(chosen), compute)
        if done is not None:
            results.append(done)
            start += len(chosen)
        elif len(chosen) == 1:
            row = rows[chosen[0]]
            raise ModelError(f"{row.name}: {row.length} tokens do not fit into memory.")
        else:
            budget.tokens = min(budget.tokens, cut.tokens(chosen)) // 2
    return results


def _attempt(loaded: LoadedModel, make: Callable[[], Batch], compute: Compute) -> tuple[Batch, Tensor] | None:
    """One batch, or None where memory ran out; what was allocated is free again by the time this returns."""
    try:
        batch = make()
        return batch, compute(batch)
    except torch.OutOfMemoryError:
        pass
    except RuntimeError as error:  # what the CPU's allocator raises has no class of its own
        if "can't allocate memory" not in str(error):
            raise
    if loaded.device.type == "cuda":
        torch.cuda.empty_cache()
    return None


class PaddedRows:
    """Rows of one context, numbered from `first`, longest first, to be cut into padded batches; what all begin with is
    computed here."""

    @torch.no_grad()
    def __init__(self, loaded: LoadedModel, rows: Sequence[Row], first: int) -> None:
        self._loaded = loaded
        self._rows = rows
        self._first = first
        self._tree = _attends_to_all(loaded, max(row.depth for row in rows))
        self._common = _shared_prefix(loaded, rows) if self._tree else SharedPrefix()
        before = self._common.length
        self._lengths = np.array(
            [row.length - before if self._tree else row.depth * len(row.lines) for row in rows]
        )  # fmt: skip
        self.order: Ints = np.argsort(-self._lengths, kind="stable") + first

    def fitting(self, start: int, tokens: int) -> int:
        """As `Cut`."""
        return max(1, tokens // int(self._lengths[self.order[start] - self._first]))

    def tokens(self, chosen: Ints) -> int:
        """As `Cut`."""
        return len(chosen) * int(self._lengths[chosen - self._first].max())

    def batch(self, chosen: Ints) -> Batch:
        """As `Cut`; without a tree every sequence stands for itself."""
        picked = [self._rows[i] for i in chosen - self._first]
        numbers = tuple(map(int, chosen))
        if self._tree:
            return _batch(self._loaded, picked, numbers, self._common)
        return _batch_of_lines(self._loaded, picked, numbers)


def _shared_prefix(loaded: LoadedModel, rows: Sequence[Row]) -> SharedPrefix:
    """Keys and values of what all prefixes begin with."""
    shared = shared_length(rows)
    if shared * (len(rows) - 1) < _share_from(loaded):
        return SharedPrefix()
    ids = to_device(rows[0].prefix[None, :shared], loaded)
    cache = DynamicCache()
    try:
        loaded.body(input_ids=ids, past_key_values=cache)
    except torch.OutOfMemoryError as error:
        raise ModelError(f"{rows[0].name}: the {shared} tokens that all rows share do not fit into memory.") from error
    layers = cast("list[DynamicLayer]", cache.layers)
    return SharedPrefix(shared, tuple((_tensor(layer.keys), _tensor(layer.values)) for layer in layers))


def _share_from(loaded: LoadedModel) -> float:
    """Tokens that a shared prefix must save: as many as could be computed in the time of a pass that computes nothing."""
    if loaded.device.type != "cuda":
        return SHARE_FROM
    return loaded.layers * LAUNCH_SECONDS_A_LAYER * GPU_FLOPS / (2 * loaded.causal.num_parameters())


def _tensor(value: Tensor | None) -> Tensor:
    assert value is not None, "a layer without keys: _attends_to_all should have said so"
    return value


def _attends_to_all(loaded: LoadedModel, depth: int) -> bool:
    """Whether each layer attends to everything before a token: only then are keys and values all that it remembers,
    and only then may a mask of our own replace the model's."""
    config = loaded.causal.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if not kinds <= {"full_attention", "sliding_attention"}:
        return False
    window = getattr(config, "sliding_window", None)
    return window is None or depth <= window


class _SharedLayer(DynamicLayer):
    """A layer's cache that holds the shared prefix once and keeps nothing of what comes after: only one forward pass
    ever follows, so that memory does not grow with batch x length x layers."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.dtype, self.device = keys.dtype, keys.device
        self.keys, self.values = keys, values
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_args: Any, **_kwargs: Any) -> tuple[Tensor, Tensor]:
        """Keys and values of prefix and new tokens: [batch, heads, prefix + length, head size]."""
        rows = key_states.shape[0]
        keys = torch.cat([_tensor(self.keys).expand(rows, -1, -1, -1), key_states], dim=-2)
        return keys, torch.cat([_tensor(self.values).expand(rows, -1, -1, -1), value_states], dim=-2)


def _batch(loaded: LoadedModel, picked: Sequence[Row], numbers: tuple[int, ...], common: SharedPrefix) -> Batch:
    """The rows behind the shared prefix, padded on the right: behind a causal mask no real token sees the padding."""
    longest = max(row.length for row in picked) - common.length
    ids = np.zeros((len(picked), longest), dtype=np.int64)
    for i, row in enumerate(picked):
        sequence = np.concatenate([row.prefix[common.length :], *row.continuations])
        ids[i, : len(sequence)] = sequence
    offsets = np.arange(len(picked)) * longest - common.length
    wanted = np.concatenate([row.wanted + offset for row, offset in zip(picked, offsets, strict=True)])
    inputs: dict[str, Tensor | Cache] = {"input_ids": to_device(ids, loaded)}
    if any(row.continuations for row in picked):
        continuation, position = _tree(picked, longest, common.length)
        inputs["position_ids"] = to_device(position, loaded)
        inputs["attention_mask"] = _tree_mask(to_device(continuation, loaded), common.length)
    elif common.length:
        inputs["position_ids"] = torch.arange(common.length, common.length + longest, device=loaded.device)[None]
        flat = torch.zeros((1, longest), dtype=torch.long, device=loaded.device)
        inputs["attention_mask"] = _tree_mask(flat, common.length)
    if common.length:
        inputs["past_key_values"] = Cache(layers=[_SharedLayer(keys, values) for keys, values in common.layers])
    return Batch(numbers, inputs, to_device(wanted, loaded))


def _batch_of_lines(loaded: LoadedModel, picked: Sequence[Row], numbers: tuple[int, ...]) -> Batch:
    """The rows with a sequence for each continuation, padded on the right, under the model's own causal mask."""
    lines = [line for row in picked for line in row.lines]
    longest = max(map(len, lines))
    ids = np.zeros((len(lines), longest), dtype=np.int64)
    for i, line in enumerate(lines):
        ids[i, : len(line)] = line
    wanted: list[Ints] = []
    first = 0
    for row in picked:
        prefix = len(row.prefix)
        parts = [np.arange(prefix) + first * longest]
        parts += [np.arange(prefix, prefix + len(b)) + (first + j) * longest for j, b in enumerate(row.continuations)]
        wanted.append(np.concatenate(parts)[row.wanted])
        first += len(row.lines)
    return Batch(numbers, {"input_ids": to_device(ids, loaded)}, to_device(np.concatenate(wanted), loaded))


def _tree(rows: Sequence[Row], longest: int, before: int) -> tuple[Ints, Ints]:
    """Per token its continuation (0: prefix) and its position in its own sequence: both [rows, longest]."""
    continuation = np.zeros((len(rows), longest), dtype=np.int64)
    position = np.zeros((len(rows), longest), dtype=np.int64)
    for i, row in enumerate(rows):
        place = len(row.prefix) - before
        position[i, :place] = np.arange(before, len(row.prefix))
        for number, tokens in enumerate(row.continuations, start=1):
            continuation[i, place : place + len(tokens)] = number
            position[i, place : place + len(tokens)] = np.arange(len(row.prefix), len(row.prefix) + len(tokens))
            place += len(tokens)
    return continuation, position


def _tree_mask(continuation: Tensor, before: int) -> Tensor:
    """Who sees whom: [rows, 1, length, before + length], True where a token may look.

    A token sees the shared prefix, and of its row what stands no later than itself and is the prefix or its own
    continuation.
    """
    length = continuation.shape[1]
    causal = torch.ones((length, length), dtype=torch.bool, device=continuation.device).tril()
    own = (continuation[:, None, :] == 0) | (continuation[:, None, :] == continuation[:, :, None])
    seen = (own & causal)[:, None]
    before_all = torch.ones((len(continuation), 1, length, before), dtype=torch.bool, device=continuation.device)
    return torch.cat([before_all, seen], dim=-1)
