"""Hidden states and first-token distributions against one whole forward pass per question."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from transformers import MistralConfig, MistralForCausalLM, PreTrainedTokenizerBase

from bystander.core.errors import ModelError
from bystander.core.records import Context
from bystander.lm.hidden import last_token_states
from bystander.lm.model import LoadedModel, load
from tests.reference.hidden import prompt_states

CLOSE = 1e-4  # float32 states of about unit size; log-probabilities in nats
CONTEXTS = [
    Context("persona", "villain", "You are a cruel villain who plots the ruin of everybody. You never help anybody."),
    Context("absent", "absent", None),
    Context("empty", "empty", ""),
]
USERS = [
    "What would you do with a free day, and whom would you tell about it?",
    "Who are you?",
    "Why?",
    "Why is it so?",
]


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint: Path) -> LoadedModel:
    return load(str(tiny_checkpoint), device="cpu")


@pytest.mark.parametrize("budget", [None, 1, 70])
def test_agrees_with_one_forward_pass_per_question(tiny: LoadedModel, budget: int | None) -> None:
    layers = [0, 2, 3]
    for found in last_token_states(tiny, CONTEXTS, USERS, layers, token_budget=budget):
        states, logprobs = prompt_states(tiny, found.context, USERS, layers)
        assert found.states.shape == (3, 48)
        assert found.states.dtype == np.float32
        assert np.abs(found.states - states.numpy()).max() < CLOSE
        assert (found.logprobs - logprobs).abs().max() < CLOSE


def test_order_of_contexts_and_users_does_not_matter(tiny: LoadedModel) -> None:
    ahead = {one.context.name: one for one in last_token_states(tiny, CONTEXTS, USERS, [1])}
    back = {one.context.name: one for one in last_token_states(tiny, CONTEXTS[::-1], USERS[::-1], [1])}
    for name, one in ahead.items():
        assert np.abs(one.states - back[name].states).max() < CLOSE
        assert (one.logprobs - back[name].logprobs.flip(0)).abs().max() < CLOSE


def test_a_sliding_window_agrees_too(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    config = MistralConfig(
        vocab_size=len(tokenizer), hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, sliding_window=8, initializer_range=0.2, pad_token_id=0,
    )  # fmt: skip
    MistralForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = load(os.fspath(tmp_path), device="cpu")
    (found,) = last_token_states(loaded, CONTEXTS[:1], USERS, [1, 2])
    states, logprobs = prompt_states(loaded, CONTEXTS[0], USERS, [1, 2])
    assert np.abs(found.states - states.numpy()).max() < CLOSE
    assert (found.logprobs - logprobs).abs().max() < CLOSE


def test_faults(tiny: LoadedModel) -> None:
    with pytest.raises(ModelError, match=r"layer 4 does not exist: .* has layers 0 to 3"):
        list(last_token_states(tiny, CONTEXTS, USERS, [0, 4]))
    with pytest.raises(ModelError, match="at least one"):
        list(last_token_states(tiny, CONTEXTS, [], [0]))
    with pytest.raises(ModelError, match="window is 512"):
        list(last_token_states(tiny, CONTEXTS, ["word " * 600], [0]))
