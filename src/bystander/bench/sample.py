"""Sampling: tokens per second of transformers' `generate`, of ours and of vLLM."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal, cast

import torch

from bystander.bench.comparison import SpeedComparison, timed
from bystander.bench.random_models import random_adapter, with_files
from bystander.core.errors import ModelError
from bystander.core.progress import Bar
from bystander.core.records import Completion
from bystander.lm.engine_vllm import VllmEngine, canary, require_vllm
from bystander.lm.model import LoadedModel, save_adapter
from bystander.lm.sample import SampleRequest, sample, token_answers
from bystander.lm.tokens import encode, render_text
from bystander.personas import context_of, load_personas
from bystander.train.recipe import Lora

Cache = Literal["dynamic", "static"]
Engine = Literal["transformers", "vllm"]
Sampler = Callable[..., Iterable[list[Completion]]]  # of requests and `max_tokens`, as `sample`
Answers = Callable[[Sequence[int], Sequence[list[int]], float, int], list[list[int]]]  # as `token_answers`
Gap = tuple[float, int, int]  # as `_greedy_gap` returns it
QUESTIONS = 8  # a persona: 111 personas give 888 prompts, as a judged probe's pilot
PLAIN_BATCH = {"cuda": 256, "cpu": 96}  # what fits and serves peers best (docs/performance.md)
VLLM_MEMORY = 0.6  # of the device: the model itself stays resident beside it, as in a study
ADAPTER_STD = 0.01  # of B's entries: an effect far above two engines' noise, and finite logits
CHECKED = 8  # prompts whose greedy answers are checked against whole forward passes
# How far below the likeliest a greedy token may lie in nats: float32 rounding; in bfloat16 one step at logits of 16.
GREEDY_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.25}


def bench_sample(
    loaded: LoadedModel, bar: Bar, *, personas: int = 111, max_tokens: int = 160, turns: int = 3,
    cache: Cache = "dynamic", engine: Engine = "transformers",
) -> list[SpeedComparison]:  # fmt: skip
    """Tokens per second at temperature 1 over 8 prompts a persona. The plain way is `generate` with the cache named,
    left-padded, in batches of 256 on a GPU and 96 on a CPU; `engine` "vllm" adds vLLM, bare and with an adapter that has
    passed its canary. Raises ModelError where one of our greedy tokens is not the likeliest in a whole forward pass."""
    if engine == "vllm":
        require_vllm()
    requests = _requests(personas)
    bar.start(f"sample: {len(requests)} prompts, {max_tokens} tokens", (turns + 1) * (4 if engine == "vllm" else 2))

    def rated(way: Sampler) -> float:
        return _median_rate(
            loaded, bar, turns, lambda: sum(c.tokens for b in way(requests, max_tokens=max_tokens) for c in b)
        )

    checked = _greedy_gap(loaded, requests[:CHECKED], partial(token_answers, loaded))
    measured = [("sample", rated(partial(sample, loaded)), checked)]
    batch = PLAIN_BATCH[loaded.device.type]
    fewer = requests[:batch]  # one batch: the plain way's rate does not depend on how many follow
    plain = _median_rate(loaded, bar, turns, lambda: _generate(loaded, fewer, max_tokens, cache))
    if engine == "vllm":
        measured += _with_vllm(loaded, requests[:CHECKED], rated)
    name = f"generate, {cache} cache, batch {len(fewer)}"
    return [
        SpeedComparison(
            f"{work}, {len(requests)} prompts", "tokens", name, plain, turns, ours, turns, ours / plain, *checked
        )
        for work, ours, checked in measured
    ]


def _with_vllm(
    loaded: LoadedModel, few: Sequence[SampleRequest], rated: Callable[[Sampler], float]
) -> list[tuple[str, float, Gap]]:
    """(work, tokens per second, greedy tokens against whole forward passes) of vLLM, bare and with an adapter on."""
    lora = Lora()
    with tempfile.TemporaryDirectory(prefix="bystander-bench-") as folder, with_files(loaded):
        path = Path(folder) / "random"
        save_adapter(random_adapter(loaded, lora, ADAPTER_STD), path, loaded.base_id)
        loaded.remove_adapter()
        checked = canary(loaded, path)
        if loaded.device.type == "cuda":
            torch.cuda.empty_cache()  # what the other ways left is vLLM's now
        with VllmEngine(loaded, memory=VLLM_MEMORY, rank=lora.rank) as served:
            bare = "sample with vLLM", rated(served.sample), _greedy_gap(loaded, few, served.token_answers)
            served.serve(path, checked)
            with loaded.adapter(path):
                gap = _greedy_gap(loaded, few, served.token_answers)
            return [bare, ("sample with vLLM and an adapter", rated(served.sample), gap)]


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
def _greedy_gap(loaded: LoadedModel, requests: Sequence[SampleRequest], answers: Answers) -> Gap:
    """(largest distance in nats of greedy tokens below the likeliest of a whole forward pass, how many are not the
    likeliest, how many there are). Raises ModelError where that distance is more than rounding: `GREEDY_TOLERANCE`, or twice
    the largest distance of two forward passes of transformers itself (an engine with that error in each logit may take
    a token that lies twice as far below)."""
    prompts = encode(loaded.tokenizer, [render_text(loaded.tokenizer, r.context, r.user) for r in requests])
    taken = answers([0] * len(prompts), prompts, 0.0, 12)
    longest = max(len(prompt) + len(answer) for prompt, answer in zip(prompts, taken, strict=True))
    below: list[torch.Tensor] = []
    noise = 0.0
    for prompt, answer in zip(prompts, taken, strict=True):
        ids = torch.tensor([prompt + answer], device=loaded.device)
        where = slice(len(prompt) - 1, len(prompt) + len(answer) - 1)
        alone = loaded.model(input_ids=ids, use_cache=False).logits[0, where].float()
        twice = torch.nn.functional.pad(ids, (0, longest - ids.shape[1])).repeat(2, 1)  # what follows changes nothing
        other = loaded.model(input_ids=twice, use_cache=False).logits[0, where].float()
        noise = max(noise, float((alone.log_softmax(-1) - other.log_softmax(-1)).abs().max()))
        below.append(alone.max(-1).values - alone.gather(1, ids[0, len(prompt) :, None])[:, 0])
    gaps = torch.cat(below)
    gap, most = float(gaps.max()), max(GREEDY_TOLERANCE[loaded.dtype], 2 * noise)
    if gap > most:
        raise ModelError(
            f"bench sample: a greedy token lies {gap:.2g} nats below the likeliest, more than {most:.2g}; sampling is not "
            "to be trusted on this device."
        )
    return gap, int((gaps > 0).sum()), len(gaps)
