"""The loss of a batch the slow way: one row at a time, all logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bystander.lm.model import LoadedModel
from bystander.lm.tokens import RenderedRow


def summed_loss(loaded: LoadedModel, rows: Sequence[RenderedRow]) -> torch.Tensor:
    """Negative log-likelihood in nats, summed over the loss tokens of all rows."""
    total = torch.zeros((), device=loaded.device)
    for row in rows:
        ids = torch.tensor([row.ids], device=loaded.device)
        logprobs = loaded.causal(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1)
        for i in range(1, len(row.ids)):
            if row.loss[i]:
                total = total - logprobs[i - 1, row.ids[i]]
    return total
