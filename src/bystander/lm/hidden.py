"""Hidden states at the last prompt token or over answers, with a context's prefix computed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bystander.core.errors import ModelError
from bystander.core.hashing import seed_for
from bystander.core.records import Context
from bystander.lm.forward import run
from bystander.lm.joint import joined
from bystander.lm.loaded import LoadedModel
from bystander.lm.rows import Batch, Budget, Row, check_window
from bystander.lm.sample import SampleRequest, sample
from bystander.lm.tokens import encode, render_texts, template_of

# Numbers of the distributions that a group of contexts holds at a time (256 MiB in float32).
DISTRIBUTIONS = 1 << 26


@dataclass(frozen=True, slots=True)
class PromptStates:
    """Where a context's prompts end. `states` float32 [layers asked for, hidden], averaged over the users;
    `logprobs` float32 [users, vocabulary], natural, of the answer's first token, on the model's device."""

    context: Context
    states: NDArray[np.float32]
    logprobs: Tensor


def last_token_states(
    loaded: LoadedModel,
    contexts: Sequence[Context],
    users: Sequence[str],
    layers: Sequence[int],
    *,
    token_budget: int | None = None,
) -> Iterator[PromptStates]:
    """Hidden states and next-token distribution at the last prompt token, one context after another; on a GPU as many as
    fill a batch are computed together.

    Layer 0 is the embeddings, layer i the output of block i; the last one has the final norm applied, as in
    transformers' `output_hidden_states`. Raises ModelError for a layer that the model does not have.
    """
    _check_layers(loaded, layers)
    picked = list(layers)

    hidden = loaded.causal.config.get_text_config().hidden_size

    def read(batch: Batch) -> Tensor:
        at_end = torch.stack(batch.layer_states(loaded), dim=1)
        logprobs = loaded.head(at_end[:, -1]).float().log_softmax(-1)
        return torch.cat([at_end[:, picked].float().flatten(1), logprobs], dim=1)

    budget = Budget.for_model(loaded, token_budget)
    asked = ((context, _rows(loaded, context, users)) for context in contexts)
    for group in joined(loaded, asked, budget, DISTRIBUTIONS // loaded.vocabulary):
        values = _in_order(run(loaded, [rows for _, rows in group], budget, read))
        for (context, _), own in zip(group, values.split(len(users)), strict=True):
            states = own[:, : len(picked) * hidden].unflatten(1, (len(picked), hidden)).double().mean(dim=0).float()
            # A copy, since who keeps one context's distributions would keep the whole group's.
            yield PromptStates(context, states.cpu().numpy(), own[:, len(picked) * hidden :].clone())


@dataclass(frozen=True, slots=True)
class AnswerStates:
    """What a context's own answers look like. `states` float32 [layers asked for, hidden]: the mean over an answer's
    tokens, averaged over the users; `tokens` and `texts`: of each answer, by user."""

    context: Context
    states: NDArray[np.float32]
    tokens: tuple[int, ...]
    texts: tuple[str, ...]


def answer_states(
    loaded: LoadedModel,
    contexts: Sequence[Context],
    users: Sequence[str],
    layers: Sequence[int],
    *,
    max_tokens: int,
    token_budget: int | None = None,
) -> Iterator[AnswerStates]:
    """Hidden states over the model's own answers, one context at a time: an answer of at most `max_tokens` tokens is
    sampled at temperature 1 for every user (seeded by context and user), tokenized by itself behind its prompt and read
    whole. The mean over response tokens of Chen et al. 2025 (arXiv 2507.21509, section 2). An answer without a token
    leaves the state at its prompt's end. Layers and errors as in `last_token_states`."""
    for context in contexts:
        asked = [
            SampleRequest(str(i), context, user, 0, seed_for("answer states", context.name, user), str(i))
            for i, user in enumerate(users)
        ]
        said = {int(one.id): one for batch in sample(loaded, asked, max_tokens=max_tokens) for one in batch}
        turns = [(user, said[i].text) for i, user in enumerate(users)]
        states, tokens = states_over(loaded, context, turns, layers, token_budget=token_budget)
        mean = states.astype(np.float64).mean(axis=0).astype(np.float32)
        yield AnswerStates(context, mean, tokens, tuple(text for _, text in turns))


def states_over(
    loaded: LoadedModel,
    context: Context,
    turns: Sequence[tuple[str, str]],
    layers: Sequence[int],
    *,
    token_budget: int | None = None,
) -> tuple[NDArray[np.float32], tuple[int, ...]]:
    """Hidden states over given answers: for each turn (user, answer) the mean over the answer's tokens, float32 [turns,
    layers, hidden], and how many tokens each had. An answer is tokenized by itself behind its prompt; one without a token
    leaves the state at its prompt's end. Layers and errors as in `last_token_states`."""
    _check_layers(loaded, layers)
    picked = list(layers)
    opening = "" if context.prefix else template_of(loaded.tokenizer).answer_start
    answers = encode(loaded.tokenizer, [opening + answer if answer else "" for _, answer in turns])
    rows: list[Row] = []
    for (user, _), prompt, answer in zip(
        turns, _prompts(loaded, context, [user for user, _ in turns]), answers, strict=True
    ):
        wanted = np.arange(len(answer)) + len(prompt) if answer else np.array([len(prompt) - 1])
        line = np.array([*prompt, *answer], dtype=np.int64)
        rows.append(Row(line, (), wanted, f"the answer to {user[:40]!r} under {context.name!r}"))

    def read(batch: Batch) -> Tensor:
        counts = torch.tensor([len(rows[row].wanted) for row in batch.rows], device=batch.wanted.device)
        owner = torch.repeat_interleave(torch.arange(len(batch.rows), device=counts.device), counts)
        found = batch.layer_states(loaded)
        of_layers: list[Tensor] = []
        for layer in picked:
            total = torch.zeros(len(counts), found[layer].shape[1], device=counts.device)
            of_layers.append(total.index_add_(0, owner, found[layer].float()) / counts[:, None])
        return torch.stack(of_layers, dim=1)

    values = _in_order(run(loaded, [rows], Budget.for_model(loaded, token_budget), read))
    return values.cpu().numpy(), tuple(map(len, answers))


def _check_layers(loaded: LoadedModel, layers: Sequence[int]) -> None:
    wrong = [layer for layer in layers if not 0 <= layer <= loaded.layers]
    if wrong:
        raise ModelError(f"layer {wrong[0]} does not exist: {loaded.name} has layers 0 to {loaded.layers}.")


def _prompts(loaded: LoadedModel, context: Context, users: Sequence[str]) -> list[list[int]]:
    if not users:
        raise ModelError("no questions to read hidden states at: give at least one.")
    return encode(loaded.tokenizer, render_texts(loaded.tokenizer, context, users))


def _rows(loaded: LoadedModel, context: Context, users: Sequence[str]) -> list[Row]:
    rows: list[Row] = []
    for user, ids in zip(users, _prompts(loaded, context, users), strict=True):
        prefix = np.array(ids, dtype=np.int64)
        rows.append(Row(prefix, (), np.array([len(ids) - 1]), f"question {user[:40]!r} under {context.name!r}"))
    check_window(loaded, rows)
    return rows


def _in_order(results: Sequence[tuple[Batch, Tensor]]) -> Tensor:
    """Results of all batches, back in the order of the rows, where they were computed."""
    values = torch.cat([found for _, found in results])
    order = np.argsort([row for batch, _ in results for row in batch.rows], kind="stable")
    return values[torch.from_numpy(order).to(values.device)]
