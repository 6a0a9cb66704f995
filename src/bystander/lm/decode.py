"""Sampling on a GPU: prompts packed without padding, then one captured graph replayed a token at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bystander.lm.packed import Cache, PackedForward, Segment, pack, to

PREFILL_TOKENS = 16384  # prompt tokens a forward pass; fills an H100 with a 7B model
LOOK_EVERY = 32  # steps between looks at who has finished: each look waits for the device
COMPACT_BELOW = 0.75  # share of rows still going below which the finished ones are dropped from the batch

# (hidden [rows, size], step [rows]) -> token [rows]; must neither wait for the device nor allocate by data.
Pick = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(slots=True)
class _State:
    """What a step reads and writes in place: per row its newest token, how many it has, and its original number."""

    token: Tensor
    step: Tensor
    row: Tensor
    cache: Cache
    answers: Tensor  # [all rows, max_tokens]


@torch.no_grad()
def decode(
    forward: PackedForward, prompts: Sequence[Sequence[int]], max_tokens: int, ends: Sequence[int], pick: Pick
) -> list[list[int]]:
    """For each prompt `max_tokens` token ids; in those of an answer that ended, the first of `ends` and then whatever.

    `pick` draws the tokens: from last hidden states [rows, size], the rows' numbers and the steps [rows].
    """
    device = forward.device
    lengths = [len(prompt) for prompt in prompts]
    cache = forward.cache(len(prompts), max(lengths) + max_tokens)
    rows = torch.arange(len(prompts), device=device)
    zeros = torch.zeros_like(rows)
    first = pick(_prefill(forward, prompts, cache), rows, zeros)
    answers = torch.full((len(prompts), max_tokens), ends[0], dtype=torch.long, device=device)
    answers[:, 0] = first
    state = _State(first, zeros, rows, cache, answers)
    ending = torch.tensor(list(ends), device=device)
    done_steps = 1
    step = _stepper(forward, state, pick)
    while done_steps < max_tokens:
        for _ in range(min(LOOK_EVERY, max_tokens - done_steps)):
            step()
            done_steps += 1
        if done_steps == max_tokens:
            break
        going = ~torch.isin(answers[state.row, :done_steps], ending).any(-1)
        left = int(going.sum())
        if left == 0:
            break
        if 2 <= left <= COMPACT_BELOW * len(going):  # a batch of one would be compiled for itself
            del step  # a captured graph holds its buffers
            state = _compact(state, going)
            step = _stepper(forward, state, pick)
    return answers.cpu().tolist()


def _prefill(forward: PackedForward, prompts: Sequence[Sequence[int]], cache: Cache) -> Tensor:
    """Fill the cache with the prompts; last hidden states [rows, size]."""
    found: list[Tensor] = []
    start = 0
    while start < len(prompts):
        end = start + 1
        tokens = len(prompts[start])
        while end < len(prompts) and tokens + len(prompts[end]) <= PREFILL_TOKENS:
            tokens += len(prompts[end])
            end += 1
        chunk = [np.array(prompt, dtype=np.int64) for prompt in prompts[start:end]]
        packed = pack([Segment(ids) for ids in chunk], forward.device)
        places = np.concatenate([np.arange(len(ids)) + row * cache.room for row, ids in enumerate(chunk, start)])
        last = to(np.cumsum([len(ids) for ids in chunk]) - 1, forward.device)
        found.append(forward.hidden(packed, last, fill=(cache, to(places, forward.device))))
        cache.filled[start:end] = to(np.array([len(ids) for ids in chunk], dtype=np.int32), forward.device)
        start = end
    return torch.cat(found)


def _stepper(forward: PackedForward, state: _State, pick: Pick) -> Callable[[], None]:
    """One step for all rows, in place; on a GPU a captured graph, since a step is hundreds of small launches."""

    def step() -> None:
        hidden = forward.step(state.token, state.cache)
        state.step += 1
        state.token.copy_(pick(hidden, state.row, state.step))
        state.answers[state.row, state.step] = state.token

    if forward.device.type != "cuda":
        return step
    kept = [each.clone() for each in (state.token, state.step, state.cache.filled)]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        if state.answers.shape[1] > int(state.step[0]) + 1:
            step()  # compiles, and fills what may not be filled during capture
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    # What the trial step wrote ahead is written again: the same values, from the same state.
    for each, before in zip((state.token, state.step, state.cache.filled), kept, strict=True):
        each.copy_(before)
    return graph.replay


def _compact(state: _State, going: Tensor) -> _State:
    """Only the rows that still go; their cache is copied together."""
    keep = going.nonzero()[:, 0]
    return _State(state.token[keep], state.step[keep], state.row[keep], state.cache.select(keep), state.answers)
