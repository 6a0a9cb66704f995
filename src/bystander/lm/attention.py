"""Causal attention over segments of unequal length that lie end to end, without padding.

On a GPU in half precision it is FlashAttention (Dao 2023, arXiv 2307.08691) as torch ships it; elsewhere a plain
reference, a segment at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where queries and keys of each segment lie: offsets [segments + 1], int32, on the device; and the longest.

    A segment's last query sees all its keys, the one before all but the last, and so on.
    """

    queries: Tensor
    keys: Tensor
    longest_query: int
    longest_key: int


def attend(q: Tensor, k: Tensor, v: Tensor, bounds: Bounds, scale: float) -> Tensor:
    """q [queries, heads, size], k and v [keys, kv_heads, size] -> [queries, heads, size]; heads share keys in groups."""
    if not has_flash(q):
        return _reference(q, k, v, bounds, scale)
    # The operator below torch's own attention functions: of those, none takes segments and shared keys at once in
    # every torch since 2.8. Dropout 0, causal aligned at the last query, no debug mask.
    return torch.ops.aten._flash_attention_forward(
        q, k, v, bounds.queries, bounds.keys, bounds.longest_query, bounds.longest_key, 0.0, True, False,
        scale=scale,
    )[0]  # fmt: skip


def attend_to_cache(q: Tensor, k: Tensor, v: Tensor, filled: Tensor, starts: Tensor, scale: float) -> Tensor:
    """One query a sequence against its cache: q [rows, heads, size], k and v [rows, room, kv_heads, size], of which
    the first `filled` [rows] (int32) count -> [rows, heads, size]. `starts` [2, rows + 1], int32: where the queries
    of each row (heads / kv_heads of them) and its keys begin."""
    rows, room, kv_heads, size = k.shape
    if not has_flash(q):
        seen = torch.arange(room, device=q.device) < filled[:, None]
        out = F.scaled_dot_product_attention(
            q[:, :, None], k.transpose(1, 2), v.transpose(1, 2), attn_mask=seen[:, None, None], scale=scale,
            enable_gqa=True,
        )  # fmt: skip
        return out[:, :, 0]
    # The heads that share keys become queries of one sequence, so that each key is read once.
    group = q.shape[1] // kv_heads
    grouped = q.view(rows, kv_heads, group, size).transpose(1, 2).reshape(rows * group, kv_heads, size)
    out = torch.ops.aten._flash_attention_forward(
        grouped, k.flatten(0, 1), v.flatten(0, 1), starts[0], starts[1], group, room, 0.0, False, False,
        scale=scale, seqused_k=filled,
    )[0]  # fmt: skip
    return out.view(rows, group, kv_heads, size).transpose(1, 2).reshape(rows, kv_heads * group, size)


def has_flash(q: Tensor) -> bool:
    """Whether FlashAttention serves tensors like this one."""
    return q.is_cuda and q.dtype in (torch.bfloat16, torch.float16)


def _reference(q: Tensor, k: Tensor, v: Tensor, bounds: Bounds, scale: float) -> Tensor:
    found: list[Tensor] = []
    queries, keys = bounds.queries.tolist(), bounds.keys.tolist()
    for q0, q1, k0, k1 in zip(queries, queries[1:], keys, keys[1:], strict=False):
        mask = torch.ones((q1 - q0, k1 - k0), dtype=torch.bool, device=q.device).tril(k1 - k0 - (q1 - q0))
        one = F.scaled_dot_product_attention(
            q[q0:q1].transpose(0, 1), k[k0:k1].transpose(0, 1), v[k0:k1].transpose(0, 1), attn_mask=mask, scale=scale,
            enable_gqa=True,
        )  # fmt: skip
        found.append(one.transpose(0, 1))
    return torch.cat(found)
