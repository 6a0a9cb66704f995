"""Sampling: many prompts in one batch, each answer decided by its own seed."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from bystander.core.errors import ModelError
from bystander.core.records import Completion, Context
from bystander.lm.decode import decode
from bystander.lm.loaded import LoadedModel
from bystander.lm.tokens import context_hash, encode, render_prompt, template_of

CPU_BATCH = 96  # peers' batch on a 2-core CPU
GPU_BATCH = 1024  # answers at a time; an H100 with a 7B model computes as long for 300 as it reads weights
CACHE_BYTES = 16 << 30  # keys and values of a batch on a GPU at most: a 7B model on 80 GB leaves four times as much


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
    seed and not on its batch-mates, but for rounding: padding changes the logits' last bits, and where unlikely tokens
    stand close together in the CDF that can pick another (measured: 2 of 743 tokens of the embedded model).
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
    if loaded.sampler is not None:
        yield from loaded.sampler.sample(loaded, requests, temperature, max_tokens)
        return
    room = max(map(len, prompts), default=0) + max_tokens
    size = batch_size or _batch_size(loaded, room)
    order = sorted(range(len(requests)), key=lambda i: (-len(prompts[i]), i))
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        yield _batch(loaded, [requests[i] for i in chosen], [prompts[i] for i in chosen], temperature, max_tokens)


def sample_groups(
    loaded: LoadedModel,
    requests: Sequence[SampleRequest],
    group: int,
    done: Collection[int] = (),
    *,
    temperature: float = 1.0,
    max_tokens: int,
    at_once: int | None = None,
) -> Iterator[tuple[int, list[Completion]]]:
    """The answers of each `group` requests that follow each other, with the group's number, but for those of `done`.

    A GPU and another engine get as many groups at once as fill their batches (`at_once` answers). Which are sampled together is decided by
    their numbers alone: where a run goes on, those of `done` beside which a missing one was sampled are sampled again,
    so that every answer has the batch-mates that it had.
    """
    wide = loaded.device.type == "cuda" or loaded.sampler is not None
    together = max(1, (at_once or (GPU_BATCH if wide else group)) // group)
    count = math.ceil(len(requests) / group)
    for first in range(0, count, together):
        wanted = [i for i in range(first, min(first + together, count)) if i not in done]
        if not wanted:
            continue
        chosen = requests[first * group : (first + together) * group]
        place = {request.id: first + i // group for i, request in enumerate(chosen)}
        found: dict[int, list[Completion]] = {i: [] for i in wanted}
        for batch in sample(loaded, chosen, temperature=temperature, max_tokens=max_tokens):
            for completion in batch:
                if place[completion.id] in found:
                    found[place[completion.id]].append(completion)
        yield from found.items()


def _batch_size(loaded: LoadedModel, room: int) -> int:
    """Rows a batch, decided by the model and the lengths alone, so that a batch is the same on every card."""
    if loaded.device.type != "cuda":
        return CPU_BATCH
    config = loaded.causal.config.get_text_config()
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    row = 2 * loaded.layers * config.num_key_value_heads * size * room * loaded.dtype.itemsize
    return max(1, min(GPU_BATCH, CACHE_BYTES // row))


def _batch(
    loaded: LoadedModel,
    requests: Sequence[SampleRequest],
    prompts: Sequence[list[int]],
    temperature: float,
    max_tokens: int,
) -> list[Completion]:
    try:
        answers = token_answers(loaded, [r.seed for r in requests], prompts, temperature, max_tokens)
    except torch.OutOfMemoryError as error:
        if len(requests) == 1:
            raise ModelError(
                f"request {requests[0].id}: one answer of {max_tokens} tokens exceeds the memory."
            ) from error
        answers = None
    if answers is None:  # here, since the error above holds on to the memory of its frames
        torch.cuda.empty_cache()
        half = len(requests) // 2
        cuts = (slice(None, half), slice(half, None))
        return [one for cut in cuts for one in _batch(loaded, requests[cut], prompts[cut], temperature, max_tokens)]
    ends = end_tokens(loaded)
    return [completion(loaded, *each, ends, max_tokens) for each in zip(requests, prompts, answers, strict=True)]


def token_answers(
    loaded: LoadedModel, seeds: Sequence[int], prompts: Sequence[list[int]], temperature: float, max_tokens: int
) -> list[list[int]]:
    """One batch's answers as token ids; the last one is the end token, where an answer ended."""
    ends = end_tokens(loaded)
    way = _packed if loaded.packed is not None else _generated
    return [through_end(answer, ends) for answer in way(loaded, seeds, prompts, temperature, max_tokens, ends)]


def _packed(
    loaded: LoadedModel, seeds: Sequence[int], prompts: Sequence[list[int]], temperature: float, max_tokens: int,
    ends: Sequence[int],
) -> list[list[int]]:  # fmt: skip
    """By `decode`, without padding."""
    forward = loaded.packed
    assert forward is not None
    uniforms = _uniforms(seeds, max_tokens).to(loaded.device)

    def pick(hidden: Tensor, row: Tensor, step: Tensor) -> Tensor:
        return drawn(loaded.head(hidden), uniforms[row, step][:, None], temperature)

    return decode(forward, prompts, max_tokens, ends, pick)


def _generated(
    loaded: LoadedModel, seeds: Sequence[int], prompts: Sequence[list[int]], temperature: float, max_tokens: int,
    ends: Sequence[int],
) -> list[list[int]]:  # fmt: skip
    """By transformers' `generate`, padded on the left."""
    pad = ends[0]
    longest = max(map(len, prompts))
    ids = torch.tensor([[pad] * (longest - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    config = GenerationConfig(
        max_new_tokens=max_tokens,
        do_sample=False,
        pad_token_id=pad,
        eos_token_id=list(ends),
        # A static cache would be compiled on a GPU: 100 s for each shape on one H100 (SmolLM2-135M, float32, torch
        # 2.11), where `decode` does not serve. The cache that grows needs no compiling.
    )
    processors = LogitsProcessorList()
    if temperature > 0:
        processors.append(InverseCdf(seeds, longest, max_tokens, temperature))
    with torch.no_grad():
        out = cast(Any, loaded.causal).generate(
            input_ids=ids.to(loaded.device),
            attention_mask=mask.to(loaded.device),
            generation_config=config,
            logits_processor=processors,
        )
    return out[:, longest:].cpu().tolist()


def through_end(answer: Sequence[int], ends: Sequence[int]) -> list[int]:
    """An answer up to its first end token, that one included: what stands behind it is padding or what came after."""
    stop = next((i for i, token in enumerate(answer) if token in ends), len(answer))
    return list(answer[: stop + 1])


def completion(
    loaded: LoadedModel,
    request: SampleRequest,
    prompt: list[int],
    answer: list[int],
    ends: Sequence[int],
    max_tokens: int,
) -> Completion:
    """The record of an answer that goes `through_end`, whichever way it was sampled: the end token decides how it
    finished, and is neither in the text nor in the count."""
    stopped = bool(answer) and answer[-1] in ends
    assert stopped or len(answer) == max_tokens, "an answer was cut before its end: how it finished is not known"
    reason: Literal["stop", "length"] = "stop" if stopped else "length"
    kept = answer[:-1] if stopped else answer
    opening = "" if request.start or request.context.prefix else template_of(loaded.tokenizer).answer_start
    return Completion(
        id=request.id,
        context=request.context.kind,
        persona=request.context.name,
        item=request.item,
        sample=request.sample,
        prompt=request.user,
        text=loaded.tokenizer.decode(kept, skip_special_tokens=True).removeprefix(opening),
        finish_reason=reason,
        seed=request.seed,
        tokens=len(kept),
        context_hash=context_hash(prompt),
    )


def end_tokens(loaded: LoadedModel) -> list[int]:
    """The tokens that end an answer: the generation settings', the tokenizer's, and how the template ends a turn."""
    config = getattr(loaded.causal, "generation_config", None)
    found = getattr(config, "eos_token_id", None) if config is not None else None
    ends = found if isinstance(found, list) else [found]
    after = encode(loaded.tokenizer, [template_of(loaded.tokenizer).answer_end])[0][:1]
    turn = [token for token in after if token in loaded.tokenizer.added_tokens_decoder]
    known = [int(token) for token in [*ends, loaded.tokenizer.eos_token_id, *turn] if token is not None]
    if not known:
        raise ModelError(f"model {loaded.name} names no end-of-turn token, so answers would never end.")
    return list(dict.fromkeys(known))


def _uniforms(seeds: Sequence[int], steps: int) -> Tensor:
    """[seeds, steps], float64, from Philox keyed by each seed (Salmon et al. 2011, "Parallel random numbers: as easy
    as 1, 2, 3")."""
    return torch.from_numpy(np.stack([np.random.Generator(np.random.Philox(key=seed)).random(steps) for seed in seeds]))


def drawn(logits: Tensor, uniform: Tensor, temperature: float) -> Tensor:
    """Token [rows] by inverse CDF: the first whose cumulative probability exceeds the row's `uniform` [rows, 1].

    `logits` [rows, vocabulary]; temperature 0 takes the likeliest.
    """
    if temperature == 0:
        return logits.argmax(-1)
    cumulative = (logits.float() / temperature).softmax(-1).double().cumsum(-1)
    token = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)
    return token.clamp(max=logits.shape[1] - 1)[:, 0]


class InverseCdf(LogitsProcessor):
    """Leaves one token alive per row: the one `drawn` with the row's uniform of this step."""

    def __init__(self, seeds: Sequence[int], prompt_length: int, steps: int, temperature: float) -> None:
        self.uniforms = _uniforms(seeds, steps)
        self.prompt_length = prompt_length
        self.temperature = temperature

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """[rows, vocabulary] logits -> the same with all but the drawn token at minus infinity."""
        if self.uniforms.device != scores.device:
            self.uniforms = self.uniforms.to(scores.device)
        uniform = self.uniforms[:, input_ids.shape[1] - self.prompt_length, None]
        token = drawn(scores, uniform, self.temperature)
        return torch.full_like(scores, float("-inf")).scatter(1, token[:, None], 0.0)
