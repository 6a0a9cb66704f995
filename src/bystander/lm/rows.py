"""What forward passes are asked for (rows of tokens, and the places whose states are wanted) and what goes through at
once (batches, within a budget)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from transformers import Cache

from bystander.core.errors import ModelError
from bystander.lm.loaded import LoadedModel
from bystander.lm.packed import Packed, PackedForward, to

CPU_TOKENS = 512  # padded tokens a batch; ARC in label mode: 512 is 5 % faster than 1,024 and 16 % than 2,048
GPU_TOKENS = 16384  # fills an H100 with a 7B model: 64 rows of 130 tokens are enough
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


def check_window(loaded: LoadedModel, rows: Sequence[Row]) -> None:
    """Raises ModelError for a row longer than the model's window."""
    for row in rows:
        if row.depth > loaded.window:
            raise ModelError(
                f"{row.name}: {row.depth} tokens, but the model's window is {loaded.window}. Shorten or leave out the item."
            )


def common_prefix(sequences: Sequence[Ints]) -> int:
    """Length of what all sequences begin with."""
    shortest = min(map(len, sequences))
    first = sequences[0][:shortest]
    for sequence in sequences[1:]:
        differs = np.flatnonzero(first != sequence[: len(first)])
        if differs.size:
            first = first[: int(differs[0])]
    return len(first)


def shared_length(rows: Sequence[Row]) -> int:
    """Tokens that all rows begin with, short of every row's first wanted place and of its prefix's last token."""
    own = min(min(len(row.prefix) - 1, int(row.wanted.min())) for row in rows)
    return min(own, common_prefix([row.prefix for row in rows]))


@dataclass(slots=True)
class Budget:
    """Tokens that a batch may have, padding included; halved for good when memory runs out."""

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


def to_device(array: Ints, loaded: LoadedModel) -> Tensor:
    """The array where the model is."""
    return to(array, loaded.device)
