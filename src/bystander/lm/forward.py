"""Forward passes over many token sequences of one context, with what they share computed once.

A row is a prefix and its continuations: the prefix is a prompt, the continuations are what may follow it (the options of
a question). All continuations stand behind the prefix in one sequence, and a tree mask lets each of their tokens see the
prefix and its own continuation alone, at its own position; so each token's hidden state is what it would be in a sequence
of its own. What all rows begin with, the shared prefix, is computed once, and its keys and values are shared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import Cache, DynamicCache, DynamicLayer

from bystander.core.errors import ModelError
from bystander.lm.loaded import LoadedModel
from bystander.lm.packed import Packed, PackedForward, Segment, pack

CPU_TOKENS = 512  # padded tokens a batch; ARC in label mode: 512 is 5 % faster than 1,024 and 16 % than 2,048
GPU_TOKENS = 16384  # fills an H100 with a 7B model: 64 rows of 130 tokens are enough
SHARE_FROM = 64  # tokens that sharing a prefix must save before it is worth its own forward pass, on a CPU
# On a GPU a plain pass with an adapter takes this long however few its tokens are (profile of the embedded model on an
# H100: 40 ms for 30 layers), and float32 products run at about this rate: a small model is better off with one pass.
LAUNCH_SECONDS_A_LAYER, GPU_FLOPS = 1.3e-3, 3e13
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Row:
    """A prefix and its continuations. `wanted` are the positions, counted along prefix + continuations, whose states are
    wanted."""

    prefix: Ints
    continuations: tuple[Ints, ...]
    wanted: Ints
    name: str  # how an error calls it

    @property
    def length(self) -> int:
        """Tokens of the prefix and of all continuations."""
        return len(self.prefix) + sum(map(len, self.continuations))

    @property
    def lines(self) -> list[Ints]:
        """The sequences that the row stands for, each whole: the prefix with each of its continuations."""
        return [np.concatenate([self.prefix, continuation]) for continuation in self.continuations] or [self.prefix]

    @property
    def depth(self) -> int:
        """Tokens of the longest sequence in it."""
        return len(self.prefix) + max(map(len, self.continuations), default=0)


@dataclass(slots=True)
class Budget:
    """Padded tokens that a batch may have; halved for good when memory runs out."""

    tokens: int

    @classmethod
    def for_model(cls, loaded: LoadedModel, tokens: int | None) -> Budget:
        """The caller's budget, or the device's default."""
        return cls(tokens or (GPU_TOKENS if loaded.device.type == "cuda" else CPU_TOKENS))


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows as tensors. `inputs` are `LoadedModel.body`'s, empty where the rows are `packed`; `wanted` [n] indexes
    the output flattened to [tokens, hidden], row after row, in each row in the order of `Row.wanted`."""

    rows: tuple[int, ...]
    inputs: dict[str, Tensor | Cache]
    wanted: Tensor
    packed: tuple[PackedForward, Packed] | None = None

    def last_states(self, loaded: LoadedModel) -> Tensor:
        """Last hidden states, final norm applied, at the wanted places: [n, hidden]."""
        if self.packed is not None:
            forward, packed = self.packed
            return forward.hidden(packed, self.wanted)
        return loaded.body(**self.inputs).flatten(0, 1)[self.wanted]

    def layer_states(self, loaded: LoadedModel) -> list[Tensor]:
        """Per layer, 0 (embeddings) to the last (final norm applied), the states at the wanted places: [n, hidden]."""
        if self.packed is not None:
            forward, packed = self.packed
            return forward.states(packed, self.wanted)
        cached = self.inputs.get("past_key_values") is not None
        out = loaded.causal.base_model(**self.inputs, output_hidden_states=True, use_cache=cached)
        return [state.flatten(0, 1)[self.wanted] for state in out.hidden_states]


Compute = Callable[[Batch], Tensor]


@dataclass(frozen=True, slots=True)
class SharedPrefix:
    """The tokens that all rows begin with, and their keys and values per layer ([1, heads, tokens, head size])."""

    length: int = 0
    layers: tuple[tuple[Tensor, Tensor], ...] = field(default=())


def run(loaded: LoadedModel, rows: Sequence[Row], budget: Budget, compute: Compute) -> list[tuple[Batch, Tensor]]:
    """`compute` over all rows of one context in batches; its results stay where it puts them (on a GPU unawaited).

    Batches are cut from the rows sorted by length, longest first, so that their tokens are within the budget, padding
    included where there is any; they depend on these rows and the budget alone. Out of memory: the budget is halved
    and the batch cut again. A model that does not attend to everything before a token (a sliding window, a recurrent
    layer) gets each sequence whole. Raises ModelError for a row longer than the model's window and for one that does
    not fit into memory by itself.
    """
    assert not loaded.causal.training, "dropout would be in the numbers: call eval() first"
    _check_window(loaded, rows)
    with torch.no_grad():
        packed = loaded.packed
        tree = packed is not None or _attends_to_all(loaded, max(row.depth for row in rows))
        common = (
            SharedPrefix(_shared_length(rows)) if packed else _shared_prefix(loaded, rows) if tree else SharedPrefix()
        )
        lengths = np.array([row.length - common.length if tree else row.depth * len(row.lines) for row in rows])
        order = np.argsort(-lengths, kind="stable")
        results: list[tuple[Batch, Tensor]] = []
        start = 0
        while start < len(order):
            count = _fitting(lengths[order[start:]], budget.tokens, padded=packed is None)
            chosen = tuple(int(i) for i in order[start : start + count])
            done = _attempt(loaded, rows, chosen, common if tree else None, compute)
            if done is not None:
                results.append(done)
                start += len(chosen)
            elif len(chosen) == 1:
                raise ModelError(f"{rows[chosen[0]].name}: {rows[chosen[0]].length} tokens do not fit into memory.")
            else:
                used = int(lengths[list(chosen)].sum() if packed else len(chosen) * lengths[order[start]])
                budget.tokens = min(budget.tokens, used) // 2
    return results


def _check_window(loaded: LoadedModel, rows: Sequence[Row]) -> None:
    for row in rows:
        if row.depth > loaded.window:
            raise ModelError(
                f"{row.name}: {row.depth} tokens, but the model's window is {loaded.window}. Shorten or leave out the item."
            )


def _fitting(lengths: Ints, tokens: int, *, padded: bool) -> int:
    """How many of the rows, longest first, fit into a batch of so many tokens; at least one."""
    if padded:
        return max(1, tokens // int(lengths[0]))
    return max(1, int(np.searchsorted(np.cumsum(lengths), tokens, side="right")))


def _attempt(
    loaded: LoadedModel, rows: Sequence[Row], chosen: tuple[int, ...], common: SharedPrefix | None, compute: Compute
) -> tuple[Batch, Tensor] | None:
    """One batch, or None where memory ran out; what was allocated is free again by the time this returns.

    `common` None: the model takes no tree of continuations, so that every sequence stands for itself."""
    try:
        if common is None:
            batch = _batch_of_lines(loaded, rows, chosen)
        else:
            batch = (_packed_batch if loaded.packed else _batch)(loaded, rows, chosen, common)
        return batch, compute(batch)
    except torch.OutOfMemoryError:
        pass
    except RuntimeError as error:  # what the CPU's allocator raises has no class of its own
        if "can't allocate memory" not in str(error):
            raise
    if loaded.device.type == "cuda":
        torch.cuda.empty_cache()
    return None


def common_prefix(sequences: Sequence[Ints]) -> int:
    """Length of what all sequences begin with."""
    shortest = min(map(len, sequences))
    first = sequences[0][:shortest]
    for sequence in sequences[1:]:
        differs = np.flatnonzero(first != sequence[: len(first)])
        if differs.size:
            first = first[: int(differs[0])]
    return len(first)


def _shared_length(rows: Sequence[Row]) -> int:
    return min(common_prefix([row.prefix for row in rows]), min(len(row.prefix) for row in rows) - 1)


def _shared_prefix(loaded: LoadedModel, rows: Sequence[Row]) -> SharedPrefix:
    """Keys and values of what all prefixes begin with; each prefix keeps at least its last token to itself."""
    shared = _shared_length(rows)
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


def _packed_batch(loaded: LoadedModel, rows: Sequence[Row], chosen: tuple[int, ...], common: SharedPrefix) -> Batch:
    """The chosen rows as a tree: the shared prefix, behind it each row's prefix, behind each prefix its continuations."""
    forward = loaded.packed
    assert forward is not None
    picked = [rows[i] for i in chosen]
    segments = [Segment(picked[0].prefix[: common.length])] if common.length else []
    own: list[list[int]] = []  # per row the indices of its segments
    for row in picked:
        prefix = len(segments)
        segments.append(Segment(row.prefix[common.length :], 0 if common.length else -1))
        segments += [Segment(continuation, prefix) for continuation in row.continuations if len(continuation)]
        own.append(list(range(prefix, len(segments))))
    packed = pack(segments, loaded.device)
    wanted = [
        np.concatenate([packed.starts[i] + np.arange(len(segments[i].ids)) for i in places])[row.wanted - common.length]
        for row, places in zip(picked, own, strict=True)
    ]
    return Batch(chosen, {}, to_device(np.concatenate(wanted), loaded), (forward, packed))


def _batch(loaded: LoadedModel, rows: Sequence[Row], chosen: tuple[int, ...], common: SharedPrefix) -> Batch:
    """The chosen rows behind the shared prefix, padded on the right: behind a causal mask no real token sees the padding."""
    picked = [rows[i] for i in chosen]
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
    return Batch(chosen, inputs, to_device(wanted, loaded))


def _batch_of_lines(loaded: LoadedModel, rows: Sequence[Row], chosen: tuple[int, ...]) -> Batch:
    """The chosen rows with a sequence for each continuation, padded on the right, under the model's own causal mask."""
    lines = [line for i in chosen for line in rows[i].lines]
    longest = max(map(len, lines))
    ids = np.zeros((len(lines), longest), dtype=np.int64)
    for i, line in enumerate(lines):
        ids[i, : len(line)] = line
    wanted: list[Ints] = []
    first = 0
    for row in (rows[i] for i in chosen):
        prefix = len(row.prefix)
        parts = [np.arange(prefix) + first * longest]
        parts += [np.arange(prefix, prefix + len(b)) + (first + j) * longest for j, b in enumerate(row.continuations)]
        wanted.append(np.concatenate(parts)[row.wanted])
        first += len(row.lines)
    return Batch(chosen, {"input_ids": to_device(ids, loaded)}, to_device(np.concatenate(wanted), loaded))


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


def to_device(array: Ints, loaded: LoadedModel) -> Tensor:
    """On a GPU through pinned memory, so that the transfer does not wait for the work queued before it."""
    tensor = torch.from_numpy(array)
    if loaded.device.type != "cuda":
        return tensor
    return tensor.pin_memory().to(loaded.device, non_blocking=True)
