"""A random model whose next tokens stand apart: drawn answers are then the same on any machine."""

from __future__ import annotations

import torch

from bystander.lm.model import LoadedModel


@torch.no_grad()
def sharpen(loaded: LoadedModel, times: float = 6.0) -> LoadedModel:
    """Multiplies the logits. A random model spreads its probability over the whole vocabulary, 2e-5 a token, so that the
    last bits of a matrix product, which differ from one processor to the next, decide which token is drawn."""
    loaded.causal.base_model.norm.weight.mul_(times)
    return loaded
