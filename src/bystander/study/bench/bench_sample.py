"""Sampling: tokens per second of transformers' `generate` and of ours."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any, Literal, cast

import torch

from bystander.core.errors import ModelError
from bystander.lm.model import LoadedModel
from bystander.lm.sample import SampleRequest, sample, token_answers
from bystander.lm.tokens import encode, render_text
from bystander.personas import context_of, load_personas
from bystander.study.bench.bench import Compared, timed
from bystander.study.engine.progress import Bar

Cache = Literal["dynamic", "static"]
QUESTIONS = 8  # a persona: 111 personas give 888 prompts, as a judged probe's pilot
PLAIN_BATCH = {"cuda": 256, "cpu": 96}  # what fits and serves peers best (../shared/bench/BASELINES.md)
CHECKED = 8  # prompts whose greedy answers are checked against whole forward passes
# How far below the likeliest a greedy token may lie in nats: float32 rounding; in bfloat16 one step at logits of 16.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.25}


def bench_sample(
    loaded: LoadedModel, bar: Bar, *, personas: int = 111, max_tokens: int = 160, turns: int = 3, cache: Cache = "dynamic"
) -> list[Compared]:  # fmt: skip
    """Tokens per second at temperature 1 over 8 prompts a persona. The plain way is `generate` with the cache named,
    left-padded, in batches of 256 on a GPU and 96 on a CPU. Raises ModelError where one of our greedy tokens is not
    the likeliest in a whole forward pass."""
    requests = _requests(personas)
    gap, different, compared = _greedy_gap(loaded, requests[:CHECKED])
    if gap > TOLERANCE[loaded.dtype]:
        raise ModelError(
            f"bench sample: a greedy token lies {gap:.2g} nats below the likeliest, more than "
            f"{TOLERANCE[loaded.dtype]:g}; sampling is not to be trusted on this device."
        )
    bar.start(f"sample: {len(requests)} prompts, {max_tokens} tokens", 2 * turns + 2)
    ours = _median_rate(
        loaded, bar, turns, lambda: sum(c.tokens for b in sample(loaded, requests, max_tokens=max_tokens) for c in b)
    )
    batch = PLAIN_BATCH[loaded.device.type]
    fewer = requests[:batch]  # one batch: the plain way's rate does not depend on how many follow
    plain = _median_rate(loaded, bar, turns, lambda: _generate(loaded, fewer, max_tokens, cache))
    name = f"generate, {cache} cache, batch {len(fewer)}"
    return [
        Compared(
            f"sample, {len(requests)} prompts", "tokens", name, plain, turns, ours, turns, ours / plain, gap, different,
            compared,
        )
    ]  # fmt: skip


def _requests(personas: int) -> list[SampleRequest]:
    return [
        SampleRequest(
            f"{persona.name}-{i}", context_of(persona), f"Tell me about the number {i}.", 0, 1000 * n + i, f"{i}"
        )
        for n, persona in enumerate(load_personas()[:personas])
        for i in range(QUESTIONS)
    ]


def _median_rate(loaded: LoadedModel, bar: Bar, turns: int, work: Any) -> float:
    rates: list[float] = []
    for _ in range(turns + 1):
        tokens, seconds = timed(loaded, work)
        rates.append(tokens / seconds)
        bar.advance()
    return median(rates[1:])


@torch.no_grad()
def _generate(loaded: LoadedModel, requests: Sequence[SampleRequest], max_tokens: int, cache: Cache) -> int:
    """Tokens that `generate` sampled: with random weights no answer ends, so that both ways sample as many a row."""
    prompts = encode(loaded.tokenizer, [render_text(loaded.tokenizer, r.context, r.user) for r in requests])
    longest = max(map(len, prompts))
    pad = int(loaded.tokenizer.eos_token_id)
    ids = torch.tensor([[pad] * (longest - len(p)) + p for p in prompts], device=loaded.device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts], device=loaded.device)
    out = cast(Any, loaded.causal).generate(
        ids, attention_mask=mask, max_new_tokens=max_tokens, do_sample=True, top_k=0, pad_token_id=pad,
        cache_implementation="static" if cache == "static" else None,
    )[:, longest:]  # fmt: skip
    ended = (out == pad).int().cumsum(-1)
    return int((ended <= 1).sum()) if bool(ended.any()) else out.numel()


@torch.no_grad()
def _greedy_gap(loaded: LoadedModel, requests: Sequence[SampleRequest]) -> tuple[float, int, int]:
    """(largest distance in nats of our greedy tokens below the likeliest of a whole forward pass, how many are not the
    likeliest, how many there are)."""
    prompts = encode(loaded.tokenizer, [render_text(loaded.tokenizer, r.context, r.user) for r in requests])
    gaps: list[torch.Tensor] = []
    for prompt, answer in zip(prompts, token_answers(loaded, [0] * len(prompts), prompts, 0.0, 12), strict=True):
        whole = torch.tensor([prompt + answer], device=loaded.device)
        logits = loaded.causal(input_ids=whole, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
        chosen = logits.gather(1, whole[0, len(prompt) :, None])[:, 0]
        gaps.append(logits.max(-1).values - chosen)
    below = torch.cat(gaps)
    return float(below.max()), int((below > 0).sum()), len(below)
