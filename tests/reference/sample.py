"""Sampling the slow way: one request, one token, one whole forward pass at a time."""

from __future__ import annotations

import numpy as np
import torch

from bystander.lm.model import LoadedModel
from bystander.lm.sample import SampleRequest, end_tokens
from bystander.lm.tokens import render_prompt


@torch.no_grad()
def answer(loaded: LoadedModel, request: SampleRequest, temperature: float, max_tokens: int) -> tuple[str, str]:
    """(text, finish reason)."""
    ids = render_prompt(loaded.tokenizer, request.context, request.user, request.start)
    start = len(ids)
    for uniform in np.random.Generator(np.random.Philox(key=request.seed)).random(max_tokens):
        logits = loaded.causal(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].double()
        if temperature == 0:
            token = int(logits.argmax())
        else:
            cumulative = (logits / temperature).softmax(-1).cumsum(-1).numpy()
            token = int(np.searchsorted(cumulative, uniform * cumulative[-1], side="right"))
        if token in end_tokens(loaded):
            return loaded.tokenizer.decode(ids[start:]), "stop"
        ids.append(token)
    return loaded.tokenizer.decode(ids[start:]), "length"
