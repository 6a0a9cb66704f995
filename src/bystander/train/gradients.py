"""The gradient of the training loss under each context, before any training: which contexts a training step moves alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from bystander.core.hashing import seed_for
from bystander.core.records import NOTHING_EARLIER, Context, Earlier
from bystander.lm.model import LoadedModel, fresh_adapter
from bystander.lm.tokens import render_row
from bystander.train.loop import summed_losses
from bystander.train.recipe import Lora

# A few factors tell contexts apart as well as all do; what is written into the residual stream is in these two.
FACTORS = Lora(rank=4, alpha=8, dropout=0.0, target_modules=["o_proj", "down_proj"])


@dataclass(frozen=True, slots=True)
class ContextGradient:
    """`gradient` float32 [parameters]: of the mean negative log-likelihood in nats per completion token, with respect to
    the factors B of a fresh adapter (whose B is 0, so that the factors A have none)."""

    context: Context
    gradient: NDArray[np.float32]
    loss: float


def context_gradients(
    loaded: LoadedModel,
    contexts: Sequence[Context],
    turns: Sequence[tuple[str, str]],
    *,
    earlier: Sequence[Earlier] = (),
    lora: Lora = FACTORS,
    seed: int = 0,
    micro_tokens: int | None = None,
) -> Iterator[ContextGradient]:
    """One context at a time, the gradient of the loss of the same `turns` (user, completion) asked under it, each behind
    what it brings of its own conversation (`earlier`, one a turn; none given: nothing). Cosines of these are the similarity
    of training gradients of Xia et al. 2024 (LESS, arXiv 2402.04333), at initialization and without its projection. The
    model must carry no adapter; it has none afterwards."""
    fresh_adapter(loaded, lora.peft(), seed_for(seed, "gradient"))
    loaded.model.eval()
    try:
        factors = [p for name, p in loaded.model.named_parameters() if p.requires_grad and "lora_B" in name]
        for context in contexts:
            asked = zip(turns, earlier or [NOTHING_EARLIER] * len(turns), strict=True)
            rows = [render_row(loaded.tokenizer, own.under(context), user, text) for (user, text), own in asked]
            tokens = sum(sum(row.loss) for row in rows)
            totals = [torch.zeros_like(p, dtype=torch.float32) for p in factors]
            loss = 0.0
            with torch.enable_grad():
                for summed in summed_losses(loaded, rows, micro_tokens):
                    for total, part in zip(totals, torch.autograd.grad(summed / tokens, factors), strict=True):
                        total.add_(part)
                    loss += float(summed.detach()) / tokens
            yield ContextGradient(context, torch.cat([t.flatten() for t in totals]).cpu().numpy(), loss)
    finally:
        loaded.remove_adapter()
