"""The loss of a micro-batch on a GPU: rows end to end without padding, LoRA fused. `loop.summed_loss` is its reference.

The same mean negative log-likelihood over the same tokens; what differs is rounding (the adapter computes in the
base's dtype) and, with dropout, the draw: one mask per input of a layer's maps instead of one per map.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from bystander.lm.model import LoadedModel
from bystander.lm.packed import PackedForward, Segment, pack, to
from bystander.lm.tokens import RenderedRow

# Tokens a micro-batch: a 7B model's activations for so many take 20 GiB (measured: 10 GiB for 2,240 tokens).
MICRO_TOKENS = 4096
ROUND = 128  # a micro-batch is filled up to a multiple of so many tokens


def summed_loss(loaded: LoadedModel, forward: PackedForward, rows: Sequence[RenderedRow]) -> Tensor:
    """Negative log-likelihood in nats, summed over the loss tokens of `rows`, dropout on.

    Behind the rows come up to `ROUND - 1` tokens that nothing reads, as a sequence of their own: batches then have few
    different totals, and what the allocator holds for one serves the next.
    """
    ids = np.concatenate([np.array(row.ids, dtype=np.int64) for row in rows])
    loss = np.concatenate([np.array(row.loss, dtype=bool) for row in rows])
    loss[np.cumsum([0, *(len(row.ids) for row in rows[:-1])])] = False  # nothing predicts a row's first token
    targets = np.flatnonzero(loss)
    segments = [Segment(np.array(row.ids, dtype=np.int64)) for row in rows]
    if len(ids) % ROUND:
        segments.append(Segment(np.zeros(-len(ids) % ROUND, dtype=np.int64)))
    packed = pack(segments, loaded.device)
    hidden = forward.hidden(packed, to(targets - 1, loaded.device), training=True)
    logits = loaded.head(hidden).float()
    return torch.nn.functional.cross_entropy(logits, to(ids[targets], loaded.device), reduction="sum")


def micro_batches(batch: Sequence[RenderedRow], micro_tokens: int) -> list[list[RenderedRow]]:
    """A batch cut in its order so that each part has at most `micro_tokens` tokens (a single row may exceed)."""
    parts: list[list[RenderedRow]] = []
    tokens = 0
    for row in batch:
        if parts and tokens + len(row.ids) <= micro_tokens:
            parts[-1].append(row)
        else:
            parts.append([row])
            tokens = 0
        tokens += len(row.ids)
    return parts
