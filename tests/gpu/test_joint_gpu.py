"""On a GPU in bfloat16: batches of several contexts, and of several adapters, against batches of one, on random weights
in two shapes.

python3 -m pytest tests/gpu/test_joint_gpu.py -m gpu -W default
"""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from bystander.bench.random_models import random_adapter, shaped_model
from bystander.lm.ending import EndingItem, endings
from bystander.lm.hidden import last_token_states
from bystander.lm.model import fresh_adapter, save_adapter
from bystander.lm.packed import PackedForward
from bystander.lm.score import ScoreItem, score
from bystander.lm.score_stacked import score_adapters, stack_of, stack_pass
from bystander.personas import bare_context, context_of, load_personas
from bystander.train.recipe import Lora
from tests.reference.held import NATS, Scores, dict_of, per_token

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("default"),  # other versions of torch and transformers warn of other things
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
CONTEXTS = [*(context_of(persona) for persona in load_personas()[:20]), bare_context("absent"), bare_context("empty")]
ITEMS = [
    ScoreItem(f"{mode}{i}", f"Question {i}:" + " what is it now?" * (i % 7), options, mode)
    for i in range(40)
    for mode, options in (("label", ("A", "B", "C")), ("text", ("Rain falls.", "Milk and honey, in most countries")))
]


@pytest.fixture(scope="module", params=["qwen2.5-0.5b", "qwen2.5-1.5b"])
def loaded(request: pytest.FixtureRequest):
    model = shaped_model(request.param, "cuda")
    random_adapter(model, Lora(), 0.005).eval()
    assert model.packed is not None, model.plain_because
    return model


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The tokens of each packed batch."""
    found: list[int] = []
    real = PackedForward._run
    monkeypatch.setattr(
        PackedForward, "_run", lambda self, p, *a, **k: found.append(len(p.ids)) or real(self, p, *a, **k)
    )
    return found


def furthest(a: Scores, b: Scores) -> float:
    return max(abs(x - y) for key in a for x, y in zip(a[key].logprobs, b[key].logprobs, strict=True))


def test_scores(loaded, batches, covered) -> None:
    """As far apart as batches of one context are from batches of a quarter of one."""
    alone = dict_of(score(loaded, CONTEXTS, ITEMS, together=False))
    assert len(batches) == len(CONTEXTS)
    batches.clear()
    start = time.perf_counter()
    together = dict_of(score(loaded, CONTEXTS, ITEMS))
    seconds, filled = time.perf_counter() - start, batches[:]
    parts = dict_of(score(loaded, CONTEXTS, ITEMS, token_budget=1000, together=False))
    noise, apart = per_token(alone, parts), per_token(alone, together)
    covered.append(
        f"{loaded.name}: {len(filled)} batches of {min(filled)} to {max(filled)} tokens for {len(CONTEXTS)} contexts; "
        f"{apart:.2g} nats a token from one at a time, at most {furthest(alone, together):.2g} in all (its own quarters "
        f"{noise:.2g} and {furthest(alone, parts):.2g}); {len(together) / seconds:.0f} questions/s"
    )
    assert len(filled) < len(CONTEXTS) / 2
    assert max(filled) <= 16384
    assert together.keys() == alone.keys()
    assert apart < max(NATS, 2 * noise)


def test_states_and_endings(loaded, batches, covered) -> None:
    users = [item.user for item in ITEMS[:48:2]]
    asked = [(c, [EndingItem(f"{c.name}/{i}", user, "Well." * i, " [ZLT]") for i, user in enumerate(users[:3])])
             for c in CONTEXTS]  # fmt: skip
    together, found = list(last_token_states(loaded, CONTEXTS, users, [0, loaded.layers])), endings(loaded, asked)
    assert len(batches) < len(CONTEXTS)
    far: list[float] = []
    for context, one in zip(CONTEXTS, together, strict=True):
        (alone,) = last_token_states(loaded, [context], users, [0, loaded.layers])
        far.append(float(np.linalg.norm(one.states[1] - alone.states[1]) / np.linalg.norm(alone.states[1])))
        np.testing.assert_allclose(one.states[0], alone.states[0], rtol=1e-5, atol=1e-7)
        assert float((one.logprobs - alone.logprobs).abs().mean()) < 5 * NATS
    single = [ending for one in asked for ending in endings(loaded, [one])]
    apart = np.mean([abs(a.marker_logprob - b.marker_logprob) / a.tokens for a, b in zip(found, single, strict=True)])
    covered.append(
        f"{loaded.name}: states {np.median(far):.2g} of their length apart, endings {apart:.2g} nats a token"
    )
    assert [one.item for one in found] == [one.item for one in single]
    assert np.median(far) < 0.15
    assert apart < 5 * NATS


def test_several_adapters(loaded, covered, tmp_path) -> None:
    """Contexts of three adapters in joint batches, with grouped products, against one adapter on at a time."""
    loaded.remove_adapter()
    folders = [tmp_path / str(seed) for seed in range(3)]
    for seed, folder in enumerate(folders):
        adapter = fresh_adapter(loaded, Lora().peft(), seed)
        torch.manual_seed(seed)
        for name, parameter in adapter.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.005)
        save_adapter(adapter, folder, loaded.base_id, loaded.base_hash)
        loaded.remove_adapter()
    stack = stack_of(loaded, folders)
    assert stack is not None
    kind = stack_pass(loaded, stack)
    few, items = CONTEXTS[:4], ITEMS[:20]
    list(score_adapters(loaded, folders, few, items))  # compiles
    start = time.perf_counter()
    together = {
        (f.name, c.name, one.item.id): one for f, c, s in score_adapters(loaded, folders, few, items) for one in s
    }
    middle = time.perf_counter()
    alone: Scores = {}
    noise: list[float] = []
    for folder in folders:
        with loaded.adapter(folder) as on:
            own = dict_of(score(on, few, items))
            noise.append(per_token(own, dict_of(score(on, few, items, token_budget=1000, together=False))))
        alone |= {(folder.name, *key): one for key, one in own.items()}
    end = time.perf_counter()
    apart = per_token(alone, together)
    covered.append(
        f"{loaded.name}: {len(alone)} questions of 3 adapters, {'looped' if kind.looped else 'grouped'}: {apart:.2g} nats a "
        f"token from one at a time (its own parts {max(noise):.2g}); {middle - start:.1f} s, one at a time {end - middle:.1f}"
    )
    assert not kind.looped
    assert apart < max(NATS, 2 * max(noise))
