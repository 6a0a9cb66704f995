"""Sampling the slow way: one request, one token, one whole forward pass at a time."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import torch

from bystander.core.records import Completion
from bystander.lm.model import LoadedModel
from bystander.lm.sample import SampleRequest, end_tokens
from bystander.lm.tokens import render_text

DECISIVE = 1e-4  # padding and float32 move the cumulative probability of a sharpened random model by 7e-6 at most


def answer(loaded: LoadedModel, request: SampleRequest, temperature: float, max_tokens: int) -> Completion:
    """The whole record of one answer."""
    return answer_and_margin(loaded, request, temperature, max_tokens)[0]


def decisive(loaded: LoadedModel, request: SampleRequest, temperature: float, max_tokens: int) -> SampleRequest:
    """The request with the next seed of which no token is decided by rounding: its answer is the same on any machine."""
    for more in range(200):
        found = replace(request, seed=request.seed + more)
        if answer_and_margin(loaded, found, temperature, max_tokens)[1] > DECISIVE:
            return found
    raise AssertionError(f"no seed near {request.seed} gives an answer that rounding cannot change")


@torch.no_grad()
def answer_and_margin(
    loaded: LoadedModel, request: SampleRequest, temperature: float, max_tokens: int
) -> tuple[Completion, float]:
    """The answer, and how far the closest of its tokens was from being another: in cumulative probability, or in nats at
    temperature 0."""
    text = render_text(loaded.tokenizer, request.context, request.user)
    prompt = [
        i for part in (text, request.start) for i in loaded.tokenizer(part, add_special_tokens=False)["input_ids"]
    ]
    found: list[int] = []
    reason, margin = "length", 1.0
    for uniform in np.random.Generator(np.random.Philox(key=request.seed)).random(max_tokens):
        ids = torch.tensor([prompt + found], device=loaded.device)
        logits = loaded.causal(input_ids=ids, use_cache=False).logits[0, -1].double()
        if temperature == 0:
            token = int(logits.argmax())
            best = logits.topk(2).values
            margin = min(margin, float(best[0] - best[1]))
        else:
            cumulative = (logits / temperature).softmax(-1).cumsum(-1).cpu().numpy()
            drawn = uniform * cumulative[-1]
            token = int(np.searchsorted(cumulative, drawn, side="right"))
            below = cumulative[token - 1] if token else -1.0
            margin = min(margin, float(cumulative[token] - drawn), float(drawn - below))
        if token in end_tokens(loaded):
            reason = "stop"
            break
        found.append(token)
    completion = Completion(
        id=request.id, context=request.context.kind, persona=request.context.name, item=request.item,
        sample=request.sample, prompt=request.user, text=loaded.tokenizer.decode(found, skip_special_tokens=True),
        finish_reason=reason, seed=request.seed, tokens=len(found),
        context_hash=hashlib.sha256(np.array(prompt, dtype="<i4").tobytes()).hexdigest()[:16],
    )  # fmt: skip
    return completion, margin
