"""Hidden states and answer distributions at the last prompt token, with a context's prefix computed once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bystander.core.errors import ModelError
from bystander.core.records import Context
from bystander.lm.forward import Batch, Budget, Row, run
from bystander.lm.loaded import LoadedModel
from bystander.lm.tokens import encode, render_texts


@dataclass(frozen=True, slots=True)
class PromptStates:
    """Where a context's prompts end. `states` float32 [layers asked for, hidden], averaged over the users;
    `logprobs` float32 [users, vocabulary], natural, of the answer's first token."""

    context: Context
    states: NDArray[np.float32]
    logprobs: NDArray[np.float32]


def last_token_states(
    loaded: LoadedModel,
    contexts: Sequence[Context],
    users: Sequence[str],
    layers: Sequence[int],
    *,
    token_budget: int | None = None,
) -> Iterator[PromptStates]:
    """Hidden states and next-token distribution at the last prompt token, one context at a time.

    Layer 0 is the embeddings, layer i the output of block i; the last one has the final norm applied, as in
    transformers' `output_hidden_states`. Raises ModelError for a layer that the model does not have.
    """
    wrong = [layer for layer in layers if not 0 <= layer <= loaded.layers]
    if wrong:
        raise ModelError(f"layer {wrong[0]} does not exist: {loaded.name} has layers 0 to {loaded.layers}.")
    picked = list(layers)

    def read(batch: Batch) -> Tensor:
        at_end = torch.stack(batch.layer_states(loaded), dim=1)
        logprobs = loaded.head(at_end[:, -1]).float().log_softmax(-1)
        return torch.cat([at_end[:, picked].float().flatten(1), logprobs], dim=1)

    budget = Budget.for_model(loaded, token_budget)
    for context in contexts:
        values = _in_order(run(loaded, _rows(loaded, context, users), budget, read))
        flat, logprobs = np.split(values, [len(picked) * loaded.causal.config.get_text_config().hidden_size], axis=1)
        states = flat.reshape(len(users), len(picked), -1).astype(np.float64).mean(axis=0).astype(np.float32)
        yield PromptStates(context, states, logprobs)


def _rows(loaded: LoadedModel, context: Context, users: Sequence[str]) -> list[Row]:
    if not users:
        raise ModelError("no questions to read hidden states at: give at least one.")
    rows: list[Row] = []
    for user, ids in zip(users, encode(loaded.tokenizer, render_texts(loaded.tokenizer, context, users)), strict=True):
        prefix = np.array(ids, dtype=np.int64)
        rows.append(Row(prefix, (), np.array([len(ids) - 1]), f"question {user[:40]!r} under {context.name!r}"))
    return rows


def _in_order(results: Sequence[tuple[Batch, Tensor]]) -> NDArray[np.float32]:
    """Results of all batches, back in the order of the rows."""
    values = torch.cat([found for _, found in results]).cpu().numpy()
    order = np.argsort([row for batch, _ in results for row in batch.rows], kind="stable")
    return values[order]
