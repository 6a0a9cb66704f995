"""Sampling in batches against one request, one token, one forward pass at a time."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bystander.core.errors import ModelError
from bystander.core.hashing import seed_for
from bystander.core.records import Completion, Context
from bystander.lm.model import LoadedModel, load
from bystander.lm.sample import SampleRequest, drawn, end_tokens, sample, sample_groups
from bystander.lm.tokens import context_hash, render_prompt
from tests.reference.sample import answer as slow_answer
from tests.reference.sample import decisive
from tests.support.sharp import sharpen

CONTEXTS = [
    Context("persona", "villain", "You are a cruel villain who plots the ruin of everybody. You never help anybody."),
    Context("absent", "absent", None),
    Context("assistant", "assistant", "You are a helpful assistant."),
]


def requests(per_context: int = 2) -> list[SampleRequest]:
    return [
        SampleRequest(
            f"{context.name}/{i}", context, "What is rain?" + " Why?" * i, i, seed_for(context.name, i), f"q{i}",
            start="Well" if i % 2 else "",
        )
        for context in CONTEXTS
        for i in range(per_context)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint: Path) -> LoadedModel:
    """The tiny model, for which every tenth token ends an answer: with one of them a random model would never end."""
    loaded = load(str(tiny_checkpoint), device="cpu")
    loaded.causal.generation_config.eos_token_id = list(range(0, loaded.vocabulary, 10))
    return sharpen(loaded)


@pytest.fixture(scope="module")
def asked(tiny: LoadedModel) -> list[SampleRequest]:
    """Requests whose answers, up to ten tokens, rounding cannot change."""
    return [decisive(tiny, request, 1.0, 10) for request in requests()]


def by_id(batches: object) -> dict[str, Completion]:
    return {one.id: one for batch in batches for one in batch}


@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0])
def test_agrees_with_one_at_a_time(tiny: LoadedModel, temperature: float) -> None:
    asked = [decisive(tiny, request, temperature, 10) for request in requests()]
    found = by_id(sample(tiny, asked, temperature=temperature, max_tokens=10))
    assert len(found) == len(asked)
    for request in asked:
        assert found[request.id] == slow_answer(tiny, request, temperature, 10)
    if temperature == 1.0:
        assert {one.finish_reason for one in found.values()} == {"stop", "length"}, "both endings must be covered"


def test_a_sample_depends_on_its_own_seed_only(tiny: LoadedModel, asked: list[SampleRequest]) -> None:
    together = by_id(sample(tiny, asked, max_tokens=8))
    assert by_id(sample(tiny, asked[::-1], max_tokens=8)) == together
    assert by_id(sample(tiny, asked, max_tokens=8, batch_size=1)) == together
    assert by_id(sample(tiny, asked[2:5], max_tokens=8)) == {r.id: together[r.id] for r in asked[2:5]}
    torch.manual_seed(99)
    assert by_id(sample(tiny, asked, max_tokens=8)) == together, "the global random state must not matter"
    other = [replace(r, seed=r.seed + 1) for r in asked]
    changed = by_id(sample(tiny, other, max_tokens=8))
    assert sum(changed[r.id].text != together[r.id].text for r in asked) >= len(asked) - 1


def test_records_are_whole(tiny: LoadedModel) -> None:
    found = by_id(sample(tiny, requests(), max_tokens=6))
    for request in requests():
        one = found[request.id]
        assert (one.context, one.persona) == (request.context.kind, request.context.name)
        assert (one.item, one.sample, one.seed) == (request.item, request.sample, request.seed)
        assert one.tokens <= 6
        assert (one.finish_reason == "length") == (one.tokens == 6)
        prompt = render_prompt(tiny.tokenizer, request.context, request.user, request.start)
        assert one.context_hash == context_hash(prompt)


def test_batches_are_cut_by_prompt_length(tiny: LoadedModel) -> None:
    batches = list(sample(tiny, requests(), max_tokens=2, batch_size=4))
    assert [len(batch) for batch in batches] == [4, 2]
    assert list(sample(tiny, [], max_tokens=2)) == []


def test_inverse_cdf_draws_from_the_distribution() -> None:
    """Over an even grid of uniforms each token comes as often as its probability says, to one count."""
    logits = torch.tensor([2.0, 0.0, -1.0, 1.0, -float("inf")])
    grid = (torch.arange(10_000, dtype=torch.float64) + 0.5)[:, None] / 10_000
    for temperature in (1.0, 0.5):
        counts = Counter(drawn(logits.expand(10_000, -1), grid, temperature).tolist())
        expected = (logits / temperature).softmax(-1) * 10_000
        assert all(abs(counts[i] - float(expected[i])) <= 1.5 for i in range(5))
    edges = torch.tensor([[0.0], [1.0 - 2**-53]], dtype=torch.float64)
    assert drawn(logits.expand(2, -1), edges, 1.0).tolist() == [0, 3], "never a token of no probability at the edges"


def test_end_tokens_hold_the_template_s_end_of_turn(tiny: LoadedModel, embedded: Path) -> None:
    kept = tiny.causal.generation_config.eos_token_id
    tiny.causal.generation_config.eos_token_id = 0
    assert end_tokens(tiny)[:2] == [0, 2], "<|im_end|> ends a turn of the template, whatever the settings say"
    tiny.causal.generation_config.eos_token_id = kept


def test_running_out_of_memory_halves_the_batch(tiny: LoadedModel, asked: list[SampleRequest]) -> None:
    expected = by_id(sample(tiny, asked, max_tokens=5))

    def hook(_module: object, _args: object, kwargs: dict[str, torch.Tensor]) -> None:
        ids = kwargs.get("input_ids")
        if ids is not None and len(ids) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory (made by the test)")

    handle = tiny.causal.base_model.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        assert by_id(sample(tiny, asked, max_tokens=5)) == expected
    finally:
        handle.remove()


def test_faults(tiny: LoadedModel) -> None:
    with pytest.raises(
        ModelError, match=r"villain/0: \d+ prompt tokens and 500 to sample exceed the model's window of 512"
    ):
        list(sample(tiny, requests(), max_tokens=500))
    for wrong in ({"temperature": -1.0, "max_tokens": 5}, {"temperature": 1.0, "max_tokens": 0}):
        with pytest.raises(ModelError, match="cannot sample"):
            list(sample(tiny, requests(), **wrong))


def test_philox_uniforms_are_what_they_were() -> None:
    """A change of numpy that changed them would change every sample: it must be seen."""
    assert np.random.Generator(np.random.Philox(key=7)).random(2).tolist() == [0.8720734548204873, 0.29536538151378355]


@pytest.mark.parametrize("at_once", [None, 4, 5, 100])
def test_groups_sampled_together_are_those_sampled_alone(
    tiny: LoadedModel, asked: list[SampleRequest], at_once: int | None
) -> None:
    alone = [by_id(sample(tiny, asked[i : i + 2], max_tokens=10)) for i in range(0, len(asked), 2)]
    found = list(sample_groups(tiny, asked, 2, max_tokens=10, at_once=at_once))
    assert [number for number, _ in found] == [0, 1, 2]
    assert [by_id([group]) for _, group in found] == alone


def test_groups_that_are_done_are_left_out_and_the_others_keep_their_batch_mates(
    tiny: LoadedModel, asked: list[SampleRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []

    def counted(loaded: LoadedModel, some: list[SampleRequest], **settings: float):
        given.append(len(some))
        return sample(loaded, some, **settings)

    monkeypatch.setattr("bystander.lm.sample.sample", counted)
    whole = dict(sample_groups(tiny, asked, 1, max_tokens=10, at_once=3))
    assert given == [3, 3]
    given.clear()
    left = dict(sample_groups(tiny, asked, 1, {0, 1, 2, 4}, max_tokens=10, at_once=3))
    assert given == [3], "those of the first batch are done, the second is sampled whole"
    assert left == {number: whole[number] for number in (3, 5)}
