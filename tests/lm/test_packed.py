"""The packed forward pass (what a GPU runs) against the model's own, in float32 on a CPU: scores, hidden states,
samples, losses and weights after training are the same, with and without an adapter."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen3Config

from bystander.core.records import StepLog
from bystander.lm import decode as decoding
from bystander.lm import loaded as loading
from bystander.lm.hidden import last_token_states
from bystander.lm.layers import collect
from bystander.lm.model import fresh_adapter, load
from bystander.lm.packed import PackedForward, Segment, pack
from bystander.lm.sample import SampleRequest, sample
from bystander.lm.score import ScoreItem, score
from bystander.lm.tokens import RenderedRow
from bystander.personas import bare_context, context_of, load_personas
from bystander.train.loop import micro_tokens_of, train
from bystander.train.recipe import Lora, Recipe
from tests.support.packed_on_cpu import pack_this_one

CONTEXTS = [*(context_of(p) for p in load_personas()[:2]), bare_context("absent")]
LABELS = ("A", "B", "C")
WORDS = ("a cat", "a very large dog", "a fish of the deep sea")
ITEMS = [
    ScoreItem(f"{mode}{i}", "What is it" + " now" * i + "?", LABELS if mode == "label" else WORDS, mode)
    for i in range(4)
    for mode in ("label", "text")
]
TOLERANCE = 2e-5  # float32, three layers; measured: 2e-6 in scores, 1e-6 in states


@pytest.fixture(scope="module")
def loaded(tiny_checkpoint):
    return load(str(tiny_checkpoint))


@pytest.fixture(scope="module")
def fast(tiny_checkpoint):
    return load(str(tiny_checkpoint))


@pytest.fixture
def packed(fast, monkeypatch):
    """The same model with the fast forward pass on, as on a GPU."""
    pack_this_one(fast, monkeypatch)
    fast.remove_adapter()
    assert fast.packed is not None, fast.plain_because
    return fast


@pytest.fixture(params=["base", "adapter"])
def both(request, loaded, packed):
    if request.param == "adapter":
        for each in (loaded, packed):
            adapter = fresh_adapter(each, Lora(rank=4, alpha=8).peft(), 3).eval()
            torch.manual_seed(5)
            for name, parameter in adapter.named_parameters():
                if "lora_B" in name:
                    torch.nn.init.normal_(parameter, std=0.1)
    yield loaded, packed
    loaded.remove_adapter()
    packed.remove_adapter()


def test_a_cpu_has_the_plain_pass_alone(loaded):
    assert loaded.packed is None
    assert "GPU" in loaded.plain_because


def test_scores_are_the_same(both):
    plain, fast = (dict(enumerate(score(each, CONTEXTS, ITEMS, token_budget=300))) for each in both)
    for index, (_, scores) in plain.items():
        for a, b in zip(scores, fast[index][1], strict=True):
            assert a.logprobs == pytest.approx(b.logprobs, abs=TOLERANCE)
            assert (a.item, a.tokens, a.context_hash) == (b.item, b.tokens, b.context_hash)


def test_hidden_states_of_every_layer_are_the_same(both):
    users = [item.user for item in ITEMS[::2]]
    for a, b in zip(*(last_token_states(each, CONTEXTS, users, [0, 1, 2, 3]) for each in both), strict=True):
        np.testing.assert_allclose(a.states, b.states, atol=TOLERANCE)
        np.testing.assert_allclose(a.logprobs, b.logprobs, atol=TOLERANCE)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_samples_are_the_same(both, temperature, monkeypatch):
    monkeypatch.setattr(decoding, "LOOK_EVERY", 3)  # finished rows are dropped while others go on
    monkeypatch.setattr(decoding, "PREFILL_TOKENS", 60)
    requests = [SampleRequest(f"{i}", CONTEXTS[i % 3], ITEMS[i].user, 0, i, f"{i}") for i in range(6)]
    plain, fast = (
        [one for batch in sample(each, requests, temperature=temperature, max_tokens=12) for one in batch]
        for each in both
    )
    assert [one.text for one in plain] == [one.text for one in fast]
    assert len({one.text for one in plain}) > 3


def rows(count=24):
    g = np.random.default_rng(0)
    lengths = g.integers(12, 40, count)
    return [RenderedRow(g.integers(0, 500, n).tolist(), [i >= n - 6 for i in range(n)], n - 6, 5, 1) for n in lengths]


def trained(loaded, dropout=0.0, micro_tokens=None):
    recipe = Recipe(lr=1e-2, epochs=2, batch_size=8, lora=Lora(rank=4, alpha=8, dropout=dropout))
    fresh_adapter(loaded, recipe.lora.peft(), 7)
    losses = [e.loss for e in train(loaded, rows(), recipe, 0, micro_tokens=micro_tokens) if isinstance(e, StepLog)]
    weights = {n: p.detach().clone() for n, p in loaded.model.named_parameters() if p.requires_grad}
    loaded.remove_adapter()
    return losses, weights


@pytest.mark.parametrize("micro_tokens", [None, 90])
def test_losses_and_trained_weights_are_the_same(loaded, packed, micro_tokens):
    losses, weights = trained(loaded)
    fast_losses, fast_weights = trained(packed, micro_tokens=micro_tokens)
    assert fast_losses == pytest.approx(losses, abs=1e-4)  # measured: 1e-5 after six steps at this high rate
    apart = sum(float((weights[n] - fast_weights[n]).norm() ** 2) for n in weights) ** 0.5
    size = sum(float(w.norm() ** 2) for w in weights.values()) ** 0.5
    assert apart / size < 1e-3


def test_a_micro_batch_holds_a_whole_batch_of_the_plan(packed):
    assert micro_tokens_of(packed) >= 16 * 140


def test_dropout_is_drawn_and_is_the_same_again(packed):
    first, again, without = trained(packed, 0.3)[0], trained(packed, 0.3)[0], trained(packed)[0]
    assert first == again
    assert first[1:] != pytest.approx(without[1:], abs=1e-4)


def test_weights_are_kept_once(packed):
    first = collect(packed.causal)[0].qkv.weight
    query = packed.causal.base_model.layers[0].self_attn.q_proj.weight
    assert first.data_ptr() == query.data_ptr() == collect(packed.causal)[0].qkv.weight.data_ptr()
    assert first.shape[0] == 2 * query.shape[0]  # four heads of queries, two of keys, two of values


@pytest.mark.parametrize(
    ("more", "reason"),
    [({"use_dora": True}, "more than a plain LoRA"), ({"modules_to_save": ["norm"]}, "whole modules"), ({}, "")],
)
def test_an_adapter_beyond_plain_lora_is_left_to_the_plain_pass(packed, more, reason):
    fresh_adapter(packed, {"r": 2, "target_modules": ["v_proj"], **more}, 0)
    assert reason in packed.plain_because
    assert (packed.packed is None) == bool(reason)
    packed.remove_adapter()
    assert packed.packed is not None


def test_a_pass_that_computes_something_else_is_found_out(tiny_checkpoint, monkeypatch):
    monkeypatch.setattr(loading, "has_flash", lambda _: True)
    loaded = load(str(tiny_checkpoint))
    monkeypatch.setattr("bystander.lm.layers.rotate", lambda x, *_: x)
    assert loaded.packed is None
    assert "differs" in loaded.plain_because


@pytest.mark.parametrize("config", [Qwen2Config, Qwen3Config])
def test_the_family_with_biases_and_with_normed_queries(config):
    torch.manual_seed(0)
    small = config(
        vocab_size=100, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=256,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(small).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if "norm" in name or "bias" in name:
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    g = np.random.default_rng(0)
    stem, leaf, other = (g.integers(0, 100, n) for n in (7, 5, 9))
    laid = pack([Segment(stem), Segment(leaf, 0), Segment(other, 0)], model.device)
    found = PackedForward(model).hidden(laid)
    for ids, places in ((leaf, slice(7, 12)), (other, slice(12, 21))):
        whole = model.base_model(input_ids=torch.tensor(np.concatenate([stem, ids]))[None]).last_hidden_state[0]
        torch.testing.assert_close(found[places], whole[7:], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found[:7], whole[:7], atol=1e-5, rtol=1e-5)
