"""A forward pass over token sequences that lie end to end, without padding: the fast path on a GPU.

What many sequences share (a persona's prompt, a question before its options) stands once and is computed once; each
sequence's attention gathers the keys of its own ancestors. Each token's hidden state is what it would be in a sequence
of its own. `LoadedModel.body` is the reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from bystander.lm import layers
from bystander.lm.attention import Bounds, attend, attend_to_cache

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens that follow one another, behind those of the segment with index `parent` (-1: nothing before them)."""

    ids: Ints
    parent: int = -1


@dataclass(frozen=True, slots=True)
class Packed:
    """Bounds end to end. `ids` and `positions` [tokens]; `keys`: indices into the tokens, the ancestors' and its own
    for each segment, end to end, or None where no segment has a parent; `starts` [segments]: where each segment begins."""

    ids: Tensor
    positions: Tensor
    bounds: Bounds
    keys: Tensor | None
    starts: Ints


def pack(segments: Sequence[Segment], device: torch.device) -> Packed:
    """Lay segments end to end; a parent must stand before its children."""
    lengths = np.array([len(segment.ids) for segment in segments])
    starts = np.concatenate([[0], np.cumsum(lengths)])
    lines: list[Ints] = []  # of each segment the places of its ancestors' tokens and its own
    for i, segment in enumerate(segments):
        own = np.arange(starts[i], starts[i + 1])
        lines.append(own if segment.parent < 0 else np.concatenate([lines[segment.parent], own]))
    key_lengths = np.array([len(line) for line in lines])
    key_starts = np.concatenate([[0], np.cumsum(key_lengths)])
    positions = np.concatenate([np.arange(k - n, k) for k, n in zip(key_lengths, lengths, strict=True)])
    alone = all(segment.parent < 0 for segment in segments)
    return Packed(
        ids=to(np.concatenate([segment.ids for segment in segments]), device),
        positions=to(positions, device),
        bounds=Bounds(
            to(starts.astype(np.int32), device),
            to(key_starts.astype(np.int32), device),
            int(lengths.max()),
            int(key_lengths.max()),
        ),
        keys=None if alone else to(np.concatenate(lines), device),
        starts=starts[:-1],
    )


@dataclass(slots=True)
class Cache:
    """Keys and values of rows in growth: per layer [rows, room, kv_heads, head_dim]; `filled` [rows], int32, counts
    the tokens in each row; `starts` [2, rows + 1], int32: where each row's queries and keys begin in attention."""

    keys: list[Tensor]
    values: list[Tensor]
    filled: Tensor
    starts: Tensor

    @property
    def room(self) -> int:
        """Tokens that a row can hold."""
        return self.keys[0].shape[1]

    def select(self, rows: Tensor) -> Cache:
        """The cache of some rows alone, layer by layer, so that never two whole caches exist."""
        for number in range(len(self.keys)):
            self.keys[number] = self.keys[number][rows]
            self.values[number] = self.values[number][rows]
        return Cache(self.keys, self.values, self.filled[rows], self.starts[:, : len(rows) + 1])


def to(array: NDArray[np.integer], device: torch.device) -> Tensor:
    """On a GPU through pinned memory, so that the transfer does not wait for the work queued before it."""
    tensor = torch.from_numpy(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


class PackedForward:
    """The forward pass of a model as it stands, adapter included. Make it anew when the adapter changes."""

    def __init__(self, causal: PreTrainedModel) -> None:
        """Raises ValueError, with the reason, where `layers` does not compute this model or its adapter."""
        reason = layers.belongs(causal)
        if reason:
            raise ValueError(reason)
        self._causal = causal
        self._body = cast(Any, causal.base_model)
        self._layers = layers.collect(causal)
        self._shape = layers.shape_of(causal)
        self._dropout = layers.dropout_of(causal)
        self._scale = self._shape.head_dim**-0.5
        on_gpu = causal.device.type == "cuda"
        self._before, self._after = layers.compiled() if on_gpu else (layers.before_attention, layers.after_attention)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self._causal.device

    def cache(self, rows: int, room: int) -> Cache:
        """An empty cache."""
        kv, size, group = self._shape.kv_heads, self._shape.head_dim, self._shape.heads // self._shape.kv_heads
        each = torch.arange(rows + 1, dtype=torch.int32, device=self.device)

        def empty() -> list[Tensor]:
            return [
                torch.zeros((rows, room, kv, size), dtype=self._causal.dtype, device=self.device) for _ in self._layers
            ]

        return Cache(empty(), empty(), torch.zeros_like(each[1:]), torch.stack([each * group, each * room]))

    def step(self, token: Tensor, cache: Cache) -> Tensor:
        """One more token [rows] for each row -> last hidden states [rows, hidden]; the cache grows in place."""
        body = self._body
        x = body.embed_tokens(token)
        position = cache.filled.long()
        cos, sin = (part[0] for part in body.rotary_emb(x, position[None]))
        places = torch.arange(len(token), device=x.device) * cache.room + position
        cache.filled += 1
        for layer, keys, values in zip(self._layers, cache.keys, cache.values, strict=True):
            q, k, v = self._before(loose(x), loose(cos), loose(sin), layer, self._shape)
            keys.view(-1, *k.shape[1:]).index_copy_(0, places, k)
            values.view(-1, *v.shape[1:]).index_copy_(0, places, v)
            attended = attend_to_cache(q, keys, values, cache.filled, cache.starts, self._scale)
            x = self._after(loose(x), loose(attended), layer, self._shape)
        return body.norm(x)

    def hidden(
        self,
        packed: Packed,
        wanted: Tensor | None = None,
        *,
        training: bool = False,
        fill: tuple[Cache, Tensor] | None = None,
    ) -> Tensor:
        """Last hidden states, final norm applied, at the places `wanted` [n] -> [n, hidden], or at all of them.

        In the last layer everything after attention is computed at these places only. `training` turns the adapter's
        dropout on; gradients flow as torch's grad mode says. `fill`: a cache, and where in it (row x room + position)
        the keys and values of each token go.
        """
        return self._run(packed, wanted, training=training, fill=fill)[-1]

    def states(self, packed: Packed, wanted: Tensor) -> list[Tensor]:
        """Per layer, from the embeddings (0) to the last with the final norm applied, the states [n, hidden] at the
        places `wanted`, as transformers' `output_hidden_states` numbers them."""
        return self._run(packed, wanted, taps=True)

    def _run(
        self,
        packed: Packed,
        wanted: Tensor | None,
        *,
        training: bool = False,
        fill: tuple[Cache, Tensor] | None = None,
        taps: bool = False,
    ) -> list[Tensor]:
        body = self._body
        shape = self._shape._replace(dropout=self._dropout if training else 0.0)
        alone = wanted is not None and len(wanted) == 1  # a dimension of 1 would be compiled for itself
        wanted = torch.cat([wanted, wanted]) if wanted is not None and alone else wanted
        found: list[Tensor] = []
        x = body.embed_tokens(packed.ids)
        if training:
            x.requires_grad_()  # the first layer is then like all others, and one compiled graph serves them
        cos, sin = (part[0] for part in body.rotary_emb(x, packed.positions[None]))
        for number, layer in enumerate(self._layers):
            if taps:
                found.append(x if wanted is None else x[wanted])
            q, k, v = self._before(loose(x), loose(cos), loose(sin), layer, shape)
            if fill is not None:
                cache, places = fill
                cache.keys[number].view(-1, *k.shape[1:]).index_copy_(0, places, k)
                cache.values[number].view(-1, *v.shape[1:]).index_copy_(0, places, v)
            if packed.keys is not None:
                k, v = k[packed.keys], v[packed.keys]
            attended = attend(q, k, v, packed.bounds, self._scale)
            if number == len(self._layers) - 1 and wanted is not None:
                x, attended = x[wanted], attended[wanted]
            x = self._after(loose(x), loose(attended), layer, shape)
        found.append(body.norm(x))
        return [state[:1] for state in found] if alone else found


def loose(tensor: Tensor) -> Tensor:
    """Tell the compiler that the first dimension changes from call to call."""
    torch._dynamo.maybe_mark_dynamic(tensor, 0)  # pyright: ignore[reportPrivateUsage] documented there, and only there
    return tensor
