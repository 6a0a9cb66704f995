"""The benchmarks of training and sampling on a tiny model: both ways run, their results agree, and a fault is an error."""

import pytest
import torch

from bystander.bench import sample as sampling
from bystander.bench import score as scoring
from bystander.bench import train as training
from bystander.bench.random_models import BENCH_SHAPES, shaped_model
from bystander.core.errors import ModelError
from bystander.core.progress import Silent
from bystander.lm import loaded as loading
from bystander.lm.model import load


@pytest.fixture(scope="module")
def loaded(tiny_checkpoint):
    return load(str(tiny_checkpoint))


def test_training_is_compared_with_both_plain_ways_and_agrees(loaded):
    before = {name: parameter.clone() for name, parameter in loaded.causal.named_parameters()}
    found = training.bench_train(loaded, Silent(), tokens=40, spread=5, turns=1)
    assert [one.plain for one in found] == [way.name for way in training.PLAIN_LOOPS]
    assert all(one.ours_per_second > 0 and one.plain_per_second > 0 for one in found)
    assert found[0].difference < 1e-4
    assert all(torch.equal(before[name], parameter) for name, parameter in loaded.causal.named_parameters())


def test_a_training_that_computes_another_loss_is_an_error(loaded, monkeypatch):
    right = training.summed_losses
    monkeypatch.setattr(training, "summed_losses", lambda *args: (part * 1.01 for part in right(*args)))
    with pytest.raises(ModelError, match="losses of the two ways differ"):
        training.bench_train(loaded, Silent(), tokens=40, spread=5, turns=1)
    assert loaded.model is loaded.causal  # the adapter of the check is gone


def test_scoring_is_compared_with_the_plain_way_and_on_a_gpu_with_batches_of_one_context(loaded, monkeypatch):
    (found,) = scoring.bench_score(loaded, Silent(), personas=3, items=5, modes=["label"], batched=True)
    assert (found.plain, found.plain_turns, found.ours_turns, found.compared) == (scoring.IN_BATCHES.name, 3, 3, 15)
    monkeypatch.setattr(loading, "has_flash", lambda _: True)
    loaded._packed = None
    try:
        plain, alone = scoring.bench_score(loaded, Silent(), personas=3, items=5, modes=["text"], plain_personas=2)
    finally:
        loaded._packed = None
    assert (plain.plain, plain.plain_turns, plain.compared) == (scoring.BY_OPTION.name, 2, 10)
    assert (alone.plain, alone.plain_turns, alone.compared) == ("batches of one context", scoring.JOINT_TURNS, 15)
    assert plain.ours_per_second == alone.ours_per_second > 0
    assert alone.ratio == alone.ours_per_second / alone.plain_per_second


def test_scores_of_another_model_are_an_error(loaded, monkeypatch):
    wrong = scoring.PlainScorer("wrong", lambda _, __, items: [[-1.0] * len(item.options) for item in items])
    monkeypatch.setattr(scoring, "BY_QUESTION", wrong)
    with pytest.raises(ModelError, match="wrong and ours differ"):
        scoring.bench_score(loaded, Silent(), personas=1, items=3, modes=["label"])


def test_sampling_is_compared_and_its_greedy_tokens_are_the_likeliest(loaded):
    (found,) = sampling.bench_sample(loaded, Silent(), personas=1, max_tokens=4, turns=1)
    assert 8 <= found.compared <= 8 * 12
    assert found.difference < 1e-3
    assert found.ours_per_second > 0


def test_sampling_that_takes_other_tokens_is_an_error(loaded, monkeypatch):
    monkeypatch.setattr(sampling, "token_answers", lambda *_: [[5, 6, 7]] * 8)
    with pytest.raises(ModelError, match="below the likeliest"):
        sampling.bench_sample(loaded, Silent(), personas=1, max_tokens=4, turns=1)


def test_shapes_are_the_published_ones_and_an_unknown_one_is_named():
    seven = BENCH_SHAPES["qwen2.5-7b"]
    inside = seven.layers * seven.hidden * (
        2 * seven.hidden + 2 * seven.kv_heads * seven.hidden // seven.heads + 3 * seven.inner
    )  # fmt: skip
    assert inside == pytest.approx(6.53e9, rel=1e-3)  # "non-embedding parameters: 6.53B" on its model card
    with pytest.raises(ModelError, match=r"qwen9.*known: .*qwen2.5-7b"):
        shaped_model("qwen9", "cpu")
