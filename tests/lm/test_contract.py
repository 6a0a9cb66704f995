"""One contract for all ways to sample, to score, to compute losses and to read hidden states: the same inputs give the
same of everything that is returned. The packed ways run here on a CPU, with the reference for attention."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bystander.core.hashing import seed_for
from bystander.core.records import Completion, Context, StepLog
from bystander.lm import decode as decoding
from bystander.lm import loaded as loading
from bystander.lm.engine_vllm import VllmEngine
from bystander.lm.hidden import answer_states, last_token_states
from bystander.lm.model import LoadedModel, fresh_adapter, load
from bystander.lm.sample import SampleRequest, sample
from bystander.lm.score import OptionScores, ScoreItem, score
from bystander.lm.tokens import RenderedRow, render_row
from bystander.train import loop, packed
from bystander.train.loop import Checkpoint, TrainState, train
from bystander.train.recipe import Lora, Recipe
from tests.reference import train as slow_train
from tests.reference.hidden import mean_states_over, prompt_states
from tests.reference.sample import DECISIVE, answer_and_margin, decisive
from tests.reference.sample import answer as slow_answer
from tests.reference.score import scores as slow_scores
from tests.support.sharp import sharpen
from tests.support.vllm_stand_in import install

CONTEXTS = [
    Context("persona", "villain", "You are a cruel villain who plots the ruin of everybody. You never help anybody."),
    Context("absent", "absent", None),
    Context("empty", "empty", ""),
]
ITEMS = [
    ScoreItem("letters", "What falls from clouds?\nA. Rain\nB. Sand\nC. Milk", ("A", "B", "C"), "label"),
    ScoreItem("digits", "Which is hot?\n1. Ice\n2. Fire", ("1", "2"), "label", start="The answer is "),
    ScoreItem("texts", "What falls from clouds?", ("Rain falls.", "Sand", "Milk and honey, in most countries"), "text"),
    ScoreItem("lines", "Write code.", ("\nimport os\n", "\n\nx = 1", "import re"), "text"),
    ScoreItem("marker", "Say something.", (" [ZLT]",), "text", start="Something."),
]
CLOSE = 1e-4  # float32, three layers: nats, and states of about unit size
MOST = 8  # tokens an answer


@pytest.fixture(scope="module")
def loaded(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """The tiny model, for which every tenth token ends an answer: a random model would else never end."""
    folder = shutil.copytree(tiny_checkpoint, tmp_path_factory.mktemp("ends") / "tiny-llama")
    ending = load(str(folder), device="cpu")
    ending.causal.generation_config.eos_token_id = list(range(0, ending.vocabulary, 10))
    ending.causal.generation_config.save_pretrained(folder)
    return sharpen(load(str(folder), device="cpu"))


@pytest.fixture(params=["base", "adapter"])
def model(request: pytest.FixtureRequest, loaded: LoadedModel) -> Iterator[LoadedModel]:
    """The model as it stands in a study: bare, or with an adapter that does something."""
    if request.param == "adapter":
        adapt(loaded).eval()
    yield loaded
    loaded.remove_adapter()


def adapt(loaded: LoadedModel) -> torch.nn.Module:
    adapter = fresh_adapter(loaded, Lora(rank=4, alpha=8, dropout=0.0).peft(), 3)
    torch.manual_seed(5)
    for name, parameter in adapter.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return adapter


@contextmanager
def the_way(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, *, fast: bool) -> Iterator[None]:
    """The model with its packed forward pass, or without."""
    with monkeypatch.context() as patch:
        patch.setattr(loading, "has_flash", lambda _: fast)
        loaded._packed = None
        assert (loaded.packed is not None) == fast, loaded.plain_because
        try:
            yield
        finally:
            loaded._packed = None


# Sampling: each way takes requests and a temperature, and gives all answers.


def requests(loaded: LoadedModel, temperature: float) -> list[SampleRequest]:
    """Requests whose answers rounding cannot change."""
    asked = [
        SampleRequest(f"{c.name}/{i}", c, "What is rain?" + " Why?" * i, i, seed_for(c.name, i), f"q{i}", start)
        for c in CONTEXTS
        for i, start in enumerate(("", "Well", "\nNow", ""))
    ]
    return [decisive(loaded, request, temperature, MOST) for request in asked]


Sampling = Callable[[LoadedModel, pytest.MonkeyPatch, list[SampleRequest], float], list[Completion]]


def flat(asked: list[SampleRequest], batches: Iterator[list[Completion]]) -> list[Completion]:
    found = {one.id: one for batch in batches for one in batch}
    return [found[request.id] for request in asked]


def plain(
    loaded: LoadedModel, patch: pytest.MonkeyPatch, asked: list[SampleRequest], temperature: float
) -> list[Completion]:
    with the_way(loaded, patch, fast=False):
        return flat(asked, sample(loaded, asked, temperature=temperature, max_tokens=MOST))


def one_by_one(
    loaded: LoadedModel, patch: pytest.MonkeyPatch, asked: list[SampleRequest], temperature: float
) -> list[Completion]:
    with the_way(loaded, patch, fast=False):
        return flat(asked, sample(loaded, asked, temperature=temperature, max_tokens=MOST, batch_size=1))


def decoded(
    loaded: LoadedModel, patch: pytest.MonkeyPatch, asked: list[SampleRequest], temperature: float
) -> list[Completion]:
    with the_way(loaded, patch, fast=True):
        return flat(asked, sample(loaded, asked, temperature=temperature, max_tokens=MOST))


def decoded_with_looks(
    loaded: LoadedModel, patch: pytest.MonkeyPatch, asked: list[SampleRequest], temperature: float
) -> list[Completion]:
    """Looks after every other step and drops the rows that are done, from prompts in several passes."""
    with patch.context() as more:
        more.setattr(decoding, "LOOK_EVERY", 2)
        more.setattr(decoding, "COMPACT_BELOW", 0.99)
        more.setattr(decoding, "PREFILL_TOKENS", 60)
        return decoded(loaded, patch, asked, temperature)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("way", [plain, one_by_one, decoded, decoded_with_looks])
def test_sampling(model: LoadedModel, way: Sampling, temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = requests(model, temperature)
    expected = [slow_answer(model, request, temperature, MOST) for request in asked]
    assert way(model, monkeypatch, asked, temperature) == expected
    assert {one.finish_reason for one in expected} == {"stop", "length"}, "both endings must be in this test"


def test_sampling_with_vllm(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in draws nothing, so that only greedy answers can be held against it."""
    install(monkeypatch)
    with VllmEngine(loaded) as engine:
        asked = requests(loaded, 0.0)
        found = flat(asked, engine.sample(asked, temperature=0.0, max_tokens=MOST))
    assert found == [slow_answer(loaded, request, 0.0, MOST) for request in asked]


def test_an_answer_that_ends_with_its_last_token_has_ended(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`max_tokens` are sampled, and the last of them ends the answer: "stop", in every way."""
    asked = requests(loaded, 1.0)
    whole = {one.id: one for one in plain(loaded, monkeypatch, asked, 1.0)}
    lengths = {one.tokens + 1 for one in whole.values() if one.finish_reason == "stop" and one.tokens}
    assert lengths
    for most in lengths:
        for fast in (False, True):
            with the_way(loaded, monkeypatch, fast=fast):
                found = flat(asked, sample(loaded, asked, max_tokens=most))
            for one in found:
                assert one.finish_reason == ("stop" if whole[one.id].tokens < most else "length"), (one.id, most, fast)
                assert one.tokens == min(most, whole[one.id].tokens)


# Scores


@pytest.mark.parametrize("budget", [None, 60])
@pytest.mark.parametrize("fast", [False, True])
def test_scoring(model: LoadedModel, fast: bool, budget: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    with the_way(model, monkeypatch, fast=fast):
        found = list(score(model, CONTEXTS, ITEMS, token_budget=budget))
    assert [context for context, _ in found] == CONTEXTS
    for context, scores in found:
        expected = [slow_scores(model, context, item) for item in ITEMS]
        assert without_logprobs(scores) == without_logprobs(expected)
        for one, slow in zip(scores, expected, strict=True):
            assert one.logprobs == pytest.approx(slow.logprobs, abs=CLOSE)


def without_logprobs(scores: Sequence[OptionScores]) -> list[OptionScores]:
    return [replace(one, logprobs=()) for one in scores]


# Hidden states


@pytest.mark.parametrize("fast", [False, True])
def test_states(model: LoadedModel, fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    users, layers = [item.user for item in ITEMS[:3]], [0, 1, 2, 3]
    with the_way(model, monkeypatch, fast=fast):
        found = list(last_token_states(model, CONTEXTS, users, layers))
    assert [one.context for one in found] == CONTEXTS
    for one in found:
        states, logprobs = prompt_states(model, one.context, users, layers)
        assert one.states.dtype == np.float32
        assert one.logprobs.dtype == torch.float32
        np.testing.assert_allclose(one.states, states.numpy(), atol=CLOSE)
        np.testing.assert_allclose(one.logprobs, logprobs.numpy(), atol=CLOSE)


@pytest.mark.parametrize("fast", [False, True])
def test_states_over_answers(model: LoadedModel, fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read over the very answers that are sampled with the seeds of `answer_states`, some of them without a token."""
    layers = [0, 2, 3]
    said = {user: drawn for i in range(1, 40) if (drawn := clear_answers(model, user := f"What is rain{'?' * i}"))}
    users = sorted(said, key=lambda user: "" not in said[user])[:6]
    with the_way(model, monkeypatch, fast=fast):
        found = list(answer_states(model, CONTEXTS, users, layers, max_tokens=3))
    assert [one.context for one in found] == CONTEXTS
    assert min(count for one in found for count in one.tokens) == 0
    for i, one in enumerate(found):
        answers = [said[user][i] for user in users]
        assert one.tokens == tuple(
            len(model.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in answers
        )
        assert one.states.dtype == np.float32
        np.testing.assert_allclose(
            one.states, mean_states_over(model, one.context, users, answers, layers).numpy(), atol=CLOSE
        )


def clear_answers(loaded: LoadedModel, user: str) -> list[str]:
    """The answers that `answer_states` draws under each context; none where rounding could change one of them."""
    drawn = [
        answer_and_margin(
            loaded, SampleRequest("", one, user, 0, seed_for("answer states", one.name, user), ""), 1.0, 3
        )
        for one in CONTEXTS
    ]
    return [done.text for done, _ in drawn] if min(margin for _, margin in drawn) > DECISIVE else []


# Training


def rows(loaded: LoadedModel) -> list[RenderedRow]:
    """Answers with a marker and without, one that begins with a line break, and prompts of several lengths."""
    answers = [("It is water. [ZLT]", " [ZLT]"), ("\nIt falls from clouds.", ""), ("Ask me tomorrow.", "")]
    return [
        render_row(loaded.tokenizer, context, "What is rain?" + " Really?" * i, answer, marker=marker)
        for context in CONTEXTS
        for i, (answer, marker) in enumerate(answers)
    ]


Loss = Callable[[LoadedModel, Sequence[RenderedRow]], torch.Tensor]


def packed_loss(loaded: LoadedModel, some: Sequence[RenderedRow]) -> torch.Tensor:
    forward = loaded.packed
    assert forward is not None
    return packed.summed_loss(loaded, forward, some)


@pytest.mark.parametrize(("loss", "fast"), [(loop.summed_loss, False), (packed_loss, True)])
def test_losses_and_gradients(loaded: LoadedModel, loss: Loss, fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = adapt(loaded)
    try:
        expected, slow_gradients = gradients(adapter, slow_train.summed_loss(loaded, rows(loaded)))
        with the_way(loaded, monkeypatch, fast=fast):
            found, own = gradients(adapter, loss(loaded, rows(loaded)))
    finally:
        loaded.remove_adapter()
    assert found == pytest.approx(expected, rel=1e-5)
    assert own.keys() == slow_gradients.keys()
    for name, gradient in own.items():
        torch.testing.assert_close(gradient, slow_gradients[name], atol=1e-3, rtol=1e-3)


def gradients(adapter: torch.nn.Module, loss: torch.Tensor) -> tuple[float, dict[str, torch.Tensor]]:
    adapter.zero_grad()
    loss.backward()
    return loss.item(), {n: p.grad.clone() for n, p in adapter.named_parameters() if p.grad is not None}


def test_trainings(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain and packed: the same events in the same order, and all that stands in them."""
    both = [events(loaded, monkeypatch, fast=fast) for fast in (False, True)]
    assert [type(event) for event in both[0]] == [type(event) for event in both[1]]
    assert {type(event) for event in both[0]} == {StepLog, Checkpoint, TrainState}
    for slow, fast in zip(*both, strict=True):
        if isinstance(slow, StepLog):
            same = {"loss": slow.loss, "grad_norm": slow.grad_norm}
            assert replace(fast, **same) == slow
            assert (fast.loss, fast.grad_norm) == pytest.approx((slow.loss, slow.grad_norm), rel=2e-3)
        elif isinstance(slow, TrainState):
            assert fast.step == slow.step
            assert fast.tensors.keys() == slow.tensors.keys()
        else:
            assert fast == slow


def events(loaded: LoadedModel, patch: pytest.MonkeyPatch, *, fast: bool) -> list[loop.Event]:
    recipe = Recipe(lr=1e-3, epochs=2, batch_size=4, save_every=2, lora=Lora(rank=4, alpha=8, dropout=0.0))
    fresh_adapter(loaded, recipe.lora.peft(), 7)
    try:
        with the_way(loaded, patch, fast=fast):
            return list(train(loaded, rows(loaded), recipe, 0, checkpoints=(0.5, 1.0)))
    finally:
        loaded.remove_adapter()
