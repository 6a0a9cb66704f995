"""Rows of several contexts in one packed batch: what a context's rows begin with is a segment of its own in the tree.

One context's rows seldom fill a GPU: 40 questions are 4,000 tokens where 16,000 take no longer to launch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from torch import Tensor

from bystander.core.errors import ModelError
from bystander.lm.loaded import LoadedModel
from bystander.lm.packed import Packed, Segment, pack
from bystander.lm.rows import Batch, Budget, Ints, Row, shared_length, to_device

T = TypeVar("T")


def joined(
    loaded: LoadedModel, asked: Iterable[tuple[T, Sequence[Row]]], budget: Budget, most: int | None = None
) -> Iterator[list[tuple[T, Sequence[Row]]]]:
    """Contexts, each with its rows, as those that go through together: in their order as many as fit into one batch (and
    have no more than `most` rows), one that is larger by itself; one at a time where there is no packed pass.

    What is together is decided by these contexts and the budget alone. Where `asked` raises ModelError, the contexts
    before it still come.
    """
    together: list[tuple[T, Sequence[Row]]] = []
    tokens = rows = 0
    try:
        for one in asked:
            if loaded.packed is None:
                yield [one]
                continue
            tokens, rows = tokens + _tokens(one[1]), rows + len(one[1])
            if together and (tokens > budget.tokens or (most is not None and rows > most)):
                yield together
                together, tokens, rows = [], _tokens(one[1]), len(one[1])
            together.append(one)
    except ModelError:
        if together:
            yield together
        raise
    if together:
        yield together


def _tokens(rows: Sequence[Row]) -> int:
    shared = shared_length(rows)
    return shared + sum(row.length - shared for row in rows)


class PackedRows:
    """Rows of contexts, to be cut into packed batches: context after context, in each the longest row first."""

    def __init__(self, loaded: LoadedModel, contexts: Sequence[Sequence[Row]]) -> None:
        self._loaded = loaded
        self._rows = [row for rows in contexts for row in rows]
        self._shared = np.array([shared_length(rows) for rows in contexts])
        self._context = np.repeat(np.arange(len(contexts)), [len(rows) for rows in contexts])
        self._own = np.array([row.length for row in self._rows]) - self._shared[self._context]
        self.order: Ints = np.lexsort((-self._own, self._context))

    def fitting(self, start: int, tokens: int) -> int:
        """How many rows from `start` on fit into a batch of so many tokens; at least one."""
        used = np.cumsum(self._costs(self.order[start:]))
        return max(1, int(np.searchsorted(used, tokens, side="right")))

    def tokens(self, chosen: Ints) -> int:
        """Tokens of a batch of these rows."""
        return int(self._costs(chosen).sum())

    def batch(self, chosen: Ints) -> Batch:
        """The chosen rows for the model as it stands."""
        forward = self._loaded.packed
        assert forward is not None
        packed, wanted = self._laid(chosen)
        return Batch(tuple(map(int, chosen)), {}, wanted, (forward, packed))

    def _laid(self, chosen: Ints) -> tuple[Packed, Tensor]:
        """The chosen rows as a forest (what a context's rows begin with, behind it each row's own prefix, behind that its
        continuations), and where in it the wanted places are."""
        segments: list[Segment] = []
        own: list[list[int]] = []  # per row the indices of its segments
        stem, last = -1, -1
        for index in chosen:
            row, context = self._rows[index], int(self._context[index])
            shared = int(self._shared[context])
            if context != last:
                stem, last = len(segments) if shared else -1, context
                segments += [Segment(row.prefix[:shared])] if shared else []
            prefix = len(segments)
            segments.append(Segment(row.prefix[shared:], stem))
            segments += [Segment(continuation, prefix) for continuation in row.continuations if len(continuation)]
            own.append(list(range(prefix, len(segments))))
        packed = pack(segments, self._loaded.device)
        wanted = [
            np.concatenate([packed.starts[i] + np.arange(len(segments[i].ids)) for i in places])[
                self._rows[index].wanted - self._shared[self._context[index]]
            ]
            for index, places in zip(chosen, own, strict=True)
        ]
        return packed, to_device(np.concatenate(wanted), self._loaded)

    def _costs(self, rows: Ints) -> Ints:
        """Tokens of each row; a context's shared ones count at its first row."""
        context = self._context[rows]
        first = np.concatenate([[True], context[1:] != context[:-1]])
        return self._own[rows] + self._shared[context] * first
