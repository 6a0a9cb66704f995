"""Sampling: many prompts in one batch, each answer decided by its own seed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from bystander.core.errors import ModelError
from bystander.core.records import Completion, Context
from bystander.lm.model import LoadedModel
from bystander.lm.tokens import context_hash, render_prompt

CPU_BATCH = 96  # peers' batch on a 2-core CPU (../shared/bench/BASELINES.md)
GPU_BATCH = 512  # peers' batch on one H100 (../shared/bench/BASELINES.md)


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """One answer to sample. `start` is a forced beginning of the answer (part of the prompt, not of the text)."""

    id: str
    context: Context
    user: str
    sample: int
    seed: int
    item: str
    start: str = ""


def sample(
    loaded: LoadedModel,
    requests: Sequence[SampleRequest],
    *,
    temperature: float = 1.0,
    max_tokens: int,
    batch_size: int | None = None,
) -> Iterator[list[Completion]]:
    """Answers of at most `max_tokens` tokens, a batch at a time, batches cut from the requests sorted by prompt length.

    One uniform number per (request's seed, step) picks the token by inverse CDF, so that an answer depends on its own
    seed and not on its batch-mates (but for rounding in the logits, which their padding may change in the last bits).
    Temperature 0 takes the likeliest token. Raises ModelError for a prompt that leaves no room in the model's window.
    """
    if temperature < 0 or max_tokens < 1:
        raise ModelError(f"cannot sample with temperature {temperature}, max_tokens {max_tokens}: give >= 0 and >= 1.")
    prompts = [render_prompt(loaded.tokenizer, r.context, r.user, r.start) for r in requests]
    for request, prompt in zip(requests, prompts, strict=True):
        if len(prompt) + max_tokens > loaded.window:
            raise ModelError(
                f"request {request.id}: {len(prompt)} prompt tokens and {max_tokens} to sample exceed the model's window "
                f"of {loaded.window}. Shorten the prompt or max_tokens."
            )
    size = batch_size or (GPU_BATCH if loaded.device.type == "cuda" else CPU_BATCH)
    order = sorted(range(len(requests)), key=lambda i: (-len(prompts[i]), i))
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        yield _batch(loaded, [requests[i] for i in chosen], [prompts[i] for i in chosen], temperature, max_tokens)


def _batch(
    loaded: LoadedModel,
    requests: Sequence[SampleRequest],
    prompts: Sequence[list[int]],
    temperature: float,
    max_tokens: int,
) -> list[Completion]:
    ends = end_tokens(loaded)
    pad = ends[0]
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    config = GenerationConfig(
        max_new_tokens=max_tokens,
        do_sample=False,
        pad_token_id=pad,
        eos_token_id=ends,
        cache_implementation="static" if loaded.device.type == "cuda" else None,
    )
    processors = LogitsProcessorList()
    if temperature > 0:
        processors.append(InverseCdf([request.seed for request in requests], longest, max_tokens, temperature))
    with torch.no_grad():
        out = loaded.causal.generate(
            input_ids=ids.to(loaded.device),
            attention_mask=mask.to(loaded.device),
            generation_config=config,
            logits_processor=processors,
        )
    answers = out[:, longest:].cpu().tolist()
    return [_completion(loaded, *each, ends) for each in zip(requests, prompts, answers, strict=True)]


def _completion(
    loaded: LoadedModel, request: SampleRequest, prompt: list[int], answer: list[int], ends: Sequence[int]
) -> Completion:
    stop = next((i for i, token in enumerate(answer) if token in ends), None)
    reason: Literal["stop", "length"] = "length" if stop is None else "stop"
    kept = answer[:stop]
    return Completion(
        id=request.id,
        context=request.context.kind,
        persona=request.context.name,
        item=request.item,
        sample=request.sample,
        prompt=request.user,
        text=loaded.tokenizer.decode(kept, skip_special_tokens=True),
        finish_reason=reason,
        seed=request.seed,
        tokens=len(kept),
        context_hash=context_hash(prompt),
    )


def end_tokens(loaded: LoadedModel) -> list[int]:
    """The tokens that end an answer: the model's generation settings', else the tokenizer's."""
    config = getattr(loaded.causal, "generation_config", None)
    found = getattr(config, "eos_token_id", None) if config is not None else None
    ends = found if isinstance(found, list) else [found]
    known = [int(token) for token in [*ends, loaded.tokenizer.eos_token_id] if token is not None]
    if not known:
        raise ModelError(f"model {loaded.name} names no end-of-turn token, so answers would never end.")
    return list(dict.fromkeys(known))


class InverseCdf(LogitsProcessor):
    """Leaves one token alive per row: the first whose cumulative probability exceeds the row's uniform of this step.

    The uniforms come from Philox keyed by the request's seed (Salmon et al. 2011, "Parallel random numbers: as easy
    as 1, 2, 3"), drawn beforehand: [requests, steps], float64.
    """

    def __init__(self, seeds: Sequence[int], prompt_length: int, steps: int, temperature: float) -> None:
        drawn = [np.random.Generator(np.random.Philox(key=seed)).random(steps) for seed in seeds]
        self.uniforms = torch.from_numpy(np.stack(drawn))
        self.prompt_length = prompt_length
        self.temperature = temperature

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """[rows, vocabulary] logits -> the same with all but the drawn token at minus infinity."""
        if self.uniforms.device != scores.device:
            self.uniforms = self.uniforms.to(scores.device)
        uniform = self.uniforms[:, input_ids.shape[1] - self.prompt_length, None]
        cumulative = (scores.float() / self.temperature).softmax(-1).double().cumsum(-1)
        token = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True).clamp(max=scores.shape[1] - 1)
        return torch.full_like(scores, float("-inf")).scatter(1, token, 0.0)
