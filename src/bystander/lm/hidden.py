"""Hidden states and answer distributions at the last prompt token, with a context's prefix computed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bystander.core.errors import ModelError
from bystander.core.records import Context
from bystander.lm.forward import Batch, Budget, Row, run
from bystander.lm.model import LoadedModel
from bystander.lm.tokens import encode, render_texts


def last_token_states(
    loaded: LoadedModel,
    contexts: Sequence[Context],
    users: Sequence[str],
    layers: Sequence[int],
    *,
    token_budget: int | None = None,
) -> Iterator[tuple[Context, NDArray[np.float32]]]:
    """Per context the hidden state at the last prompt token, averaged over `users`: float32 [len(layers), hidden].

    Layer 0 is the embeddings, layer i the output of block i; the last one has the final norm applied, as in
    transformers' `output_hidden_states`. Raises ModelError for a layer that the model does not have.
    """
    wrong = [layer for layer in layers if not 0 <= layer <= loaded.layers]
    if wrong:
        raise ModelError(f"layer {wrong[0]} does not exist: {loaded.name} has layers 0 to {loaded.layers}.")
    picked = list(layers)

    def read(batch: Batch) -> Tensor:
        states = loaded.causal.base_model(**batch.inputs, output_hidden_states=True).hidden_states
        return torch.stack([states[layer].flatten(0, 1)[batch.wanted] for layer in picked], dim=1).float()

    budget = Budget.for_model(loaded, token_budget)
    for context in contexts:
        results = run(loaded, _rows(loaded, context, users), budget, read)
        yield context, _in_order(results).astype(np.float64).mean(axis=0).astype(np.float32)


def next_token_logprobs(
    loaded: LoadedModel, contexts: Sequence[Context], users: Sequence[str], *, token_budget: int | None = None
) -> Iterator[tuple[Context, NDArray[np.float64]]]:
    """Per context the natural log-probabilities of the answer's first token: float64 [len(users), vocabulary]."""

    def read(batch: Batch) -> Tensor:
        hidden = loaded.body(**batch.inputs).flatten(0, 1)[batch.wanted]
        return loaded.head(hidden).float().log_softmax(-1)

    budget = Budget.for_model(loaded, token_budget)
    for context in contexts:
        yield context, _in_order(run(loaded, _rows(loaded, context, users), budget, read)).astype(np.float64)


def _rows(loaded: LoadedModel, context: Context, users: Sequence[str]) -> list[Row]:
    if not users:
        raise ModelError("no questions to read hidden states at: give at least one.")
    rows: list[Row] = []
    for user, ids in zip(users, encode(loaded.tokenizer, render_texts(loaded.tokenizer, context, users)), strict=True):
        trunk = np.array(ids, dtype=np.int64)
        rows.append(Row(trunk, (), np.array([len(ids) - 1]), f"question {user[:40]!r} under {context.name!r}"))
    return rows


def _in_order(results: Sequence[tuple[Batch, Tensor]]) -> NDArray[np.float32]:
    """Results of all batches, back in the order of the rows."""
    values = torch.cat([found for _, found in results]).cpu().numpy()
    order = np.argsort([row for batch, _ in results for row in batch.rows], kind="stable")
    return values[order]
