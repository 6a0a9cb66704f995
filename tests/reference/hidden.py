"""Hidden states the slow way: one whole forward pass per question, all layers, all tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bystander.core.records import Context
from bystander.lm.model import LoadedModel
from bystander.lm.tokens import render_prompt


@torch.no_grad()
def prompt_states(
    loaded: LoadedModel, context: Context, users: Sequence[str], layers: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """([layers, hidden] averaged over users, [users, vocabulary] log-probabilities of the first token)."""
    states: list[torch.Tensor] = []
    logprobs: list[torch.Tensor] = []
    for user in users:
        ids = torch.tensor([render_prompt(loaded.tokenizer, context, user)], device=loaded.device)
        out = loaded.causal(input_ids=ids, output_hidden_states=True, use_cache=False)
        states.append(torch.stack([out.hidden_states[layer][0, -1].double() for layer in layers]))
        logprobs.append(out.logits[0, -1].float().log_softmax(-1))
    return torch.stack(states).mean(0), torch.stack(logprobs)


@torch.no_grad()
def mean_states_over(
    loaded: LoadedModel, context: Context, users: Sequence[str], answers: Sequence[str], layers: Sequence[int]
) -> torch.Tensor:
    """[layers, hidden]: the mean over each answer's tokens, averaged over users."""
    states: list[torch.Tensor] = []
    for user, answer in zip(users, answers, strict=True):
        prompt = render_prompt(loaded.tokenizer, context, user)
        said = loaded.tokenizer(answer, add_special_tokens=False)["input_ids"]
        out = loaded.causal(
            input_ids=torch.tensor([prompt + said], device=loaded.device), output_hidden_states=True, use_cache=False
        )
        first = len(prompt) if said else len(prompt) - 1
        states.append(torch.stack([out.hidden_states[layer][0, first:].double().mean(0) for layer in layers]))
    return torch.stack(states).mean(0)
