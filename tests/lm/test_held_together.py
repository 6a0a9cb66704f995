"""The checks that a GPU runs on a real model (`tests/gpu`), rehearsed on a CPU in bfloat16, and shown to find faults."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bystander.lm import decode as decoding
from bystander.lm import layers
from bystander.lm import sample as sampling
from bystander.lm.loaded import LoadedModel
from bystander.lm.model import fresh_adapter, load
from tests.reference import held

MOST = 12


@pytest.fixture(scope="module")
def loaded(tiny_checkpoint: Path) -> LoadedModel:
    model = load(str(tiny_checkpoint), device="cpu", dtype="bfloat16")
    model.causal.generation_config.eos_token_id = list(range(0, model.vocabulary, 10))
    return model


@pytest.fixture(params=["base", "adapter"])
def model(request, loaded):
    if request.param == "adapter":
        adapter = fresh_adapter(loaded, {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"]}, 3).eval()
        torch.manual_seed(5)
        for name, parameter in adapter.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
    yield loaded
    loaded.remove_adapter()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_answers(model, temperature) -> None:
    assert "stopped" in held.check_answers(model, temperature, MOST)


def test_scores_and_states(model) -> None:
    held.check_scores(model)
    held.check_states(model)
    held.check_prompts_and_rows(model)


@pytest.fixture(scope="module")
def exact(tiny_checkpoint: Path) -> LoadedModel:
    return load(str(tiny_checkpoint), device="cpu", dtype="float32")


def test_training(loaded, exact) -> None:
    assert "packed" in held.check_training(loaded, exact)


def test_an_end_that_is_cut_away_is_found(loaded, monkeypatch) -> None:
    """The fault that marked every packed answer as cut off."""
    real = sampling.through_end
    monkeypatch.setattr(sampling, "through_end", lambda answer, ends: [t for t in real(answer, ends) if t not in ends])
    with pytest.raises(AssertionError, match="cut before its end"):
        held.check_answers(loaded, 1.0, MOST)


def test_records_that_say_the_wrong_reason_are_found(loaded, monkeypatch) -> None:
    answered = held.sampled(loaded, 1.0, MOST, fast=True)
    held.check_records(loaded, answered, MOST)
    for wrong in ({"finish_reason": "length"}, {"tokens": 3}, {"text": "x"}, {"seed": 1}, {"context_hash": "0"}):
        one = next(
            each for each in answered if each.record.finish_reason == "stop" and each.record.tokens not in (0, 3)
        )
        broken = [held.Answered(one.request, one.prompt, one.ids, held.replace(one.record, **wrong))]
        with pytest.raises(AssertionError):
            held.check_records(loaded, [*[each for each in answered if each is not one], *broken], MOST)


def test_draws_of_another_step_are_found(loaded, monkeypatch) -> None:
    real = decoding.decode

    def late(forward, prompts, max_tokens, ends, pick):
        return real(forward, prompts, max_tokens, ends, lambda h, row, step: pick(h, row, (step + 1) % max_tokens))

    monkeypatch.setattr(sampling, "decode", late)
    with pytest.raises(AssertionError, match="not what the plain way draws"):
        held.check_answers(loaded, 1.0, MOST)


def test_a_wrong_pass_is_found_in_scores_states_and_losses(loaded, exact, monkeypatch) -> None:
    monkeypatch.setattr("bystander.lm.loaded.PACKED_APART", 1e9)  # the canary of the pass itself looks away
    monkeypatch.setattr(layers, "rotate", lambda x, *_: x)
    for check in (held.check_scores, held.check_states):
        with pytest.raises(AssertionError):
            check(loaded)
    with pytest.raises(AssertionError):
        held.check_training(loaded, exact)
