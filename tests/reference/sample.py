"""Sampling the slow way: one request, one token, one whole forward pass at a time."""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from bystander.core.records import Completion
from bystander.lm.model import LoadedModel
from bystander.lm.sample import SampleRequest, end_tokens
from bystander.lm.tokens import render_text


@torch.no_grad()
def answer(loaded: LoadedModel, request: SampleRequest, temperature: float, max_tokens: int) -> Completion:
    """The whole record of one answer."""
    text = render_text(loaded.tokenizer, request.context, request.user)
    prompt = [
        i for part in (text, request.start) for i in loaded.tokenizer(part, add_special_tokens=False)["input_ids"]
    ]
    found: list[int] = []
    reason = "length"
    for uniform in np.random.Generator(np.random.Philox(key=request.seed)).random(max_tokens):
        ids = torch.tensor([prompt + found], device=loaded.device)
        logits = loaded.causal(input_ids=ids, use_cache=False).logits[0, -1].double()
        if temperature == 0:
            token = int(logits.argmax())
        else:
            cumulative = (logits / temperature).softmax(-1).cumsum(-1).cpu().numpy()
            token = int(np.searchsorted(cumulative, uniform * cumulative[-1], side="right"))
        if token in end_tokens(loaded):
            reason = "stop"
            break
        found.append(token)
    return Completion(
        id=request.id, context=request.context.kind, persona=request.context.name, item=request.item,
        sample=request.sample, prompt=request.user, text=loaded.tokenizer.decode(found, skip_special_tokens=True),
        finish_reason=reason, seed=request.seed, tokens=len(found),
        context_hash=hashlib.sha256(np.array(prompt, dtype="<i4").tobytes()).hexdigest()[:16],
    )  # fmt: skip
