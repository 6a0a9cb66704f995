"""vLLM as a sampling engine: the canary tells an adapter that is served from one that is not. A stand-in with vLLM's
interface answers from transformers; where vLLM itself is installed, a slow test runs it."""

import importlib.util
import sys

import numpy as np
import pytest
import torch

from bystander.bench.random_models import BENCH_SHAPES, BenchShape, shaped_model
from bystander.bench.sample import bench_sample
from bystander.core.errors import ModelError
from bystander.core.progress import Silent
from bystander.lm import engine_vllm
from bystander.lm.engine_vllm import NOISE_FLOOR, Canary, VllmEngine, VllmSampler, canary, check_canary
from bystander.lm.model import fresh_adapter, load, save_adapter
from bystander.lm.sample import SampleRequest, sample
from bystander.personas import bare_context
from tests.support.vllm_stand_in import StandIn, install

REQUESTS = [SampleRequest(f"{i}", bare_context("absent"), f"What is number {i}?", 0, i, f"{i}") for i in range(3)]


def adapter_at(loaded, folder, seed, std=0.3):
    adapter = fresh_adapter(
        loaded, {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "down_proj"]}, seed
    )
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in adapter.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, std)
    save_adapter(adapter, folder, loaded.base_id)
    loaded.remove_adapter()
    return folder


@pytest.fixture(scope="module")
def loaded(tiny_checkpoint):
    return load(str(tiny_checkpoint))


@pytest.fixture(scope="module")
def adapters(loaded, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    return [adapter_at(loaded, folder / f"one-{seed}", seed) for seed in (1, 2)]


@pytest.fixture(autouse=True)
def tiny_shape(monkeypatch):
    monkeypatch.setitem(BENCH_SHAPES, "tiny", BenchShape(64, 128, 2, 4, 2, 49152, True))


@pytest.fixture
def vllm(monkeypatch):
    install(monkeypatch)
    return StandIn


@pytest.mark.parametrize("user", [VllmEngine, lambda loaded: bench_sample(loaded, Silent(), engine="vllm")])
def test_without_vllm_the_error_says_how_to_get_it(loaded, monkeypatch, user):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.delitem(sys.modules, "vllm", raising=False)
    with pytest.raises(ModelError, match=r"not installed here.*pip install 'bystander\[vllm\]'.*engine: transformers"):
        user(loaded)


def test_a_vllm_that_does_not_import_is_an_error_too(loaded, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ModelError, match=r"does not import here.*engine: transformers"):
        VllmEngine(loaded)


def test_an_adapter_is_served_under_the_hash_of_its_weights_and_samples(loaded, adapters, vllm):
    with VllmEngine(loaded) as engine:
        names = [engine.serve(path, canary(loaded, path)) for path in adapters]
        assert names[0] != names[1]
        assert all(name.startswith(path.name) for name, path in zip(names, adapters, strict=True))
        found = next(engine.sample(REQUESTS, max_tokens=4))
    assert [one.id for one in found] == ["0", "1", "2"]
    assert all(one.tokens == 4 and one.finish_reason == "length" for one in found)


def test_prefix_caching_is_on_and_adapters_are_not_merged(loaded, vllm):
    with VllmEngine(loaded) as engine:
        assert engine._llm.settings["enable_prefix_caching"]
        assert engine._llm.settings["enable_lora"]


@pytest.mark.parametrize(("fault", "message"), [("base", "serves the base"), ("stale", "stale")])
def test_the_wrong_weights_are_found_out(loaded, adapters, vllm, monkeypatch, fault, message):
    monkeypatch.setattr(StandIn, "fault", fault)
    with VllmEngine(loaded) as engine:
        if fault == "stale":
            engine.serve(adapters[0], canary(loaded, adapters[0]))
        with pytest.raises(ModelError, match=message):
            engine.serve(adapters[1], canary(loaded, adapters[1]))


def test_the_noise_floor_is_twice_the_models_own_noise_where_that_is_more(loaded, adapters, monkeypatch):
    assert canary(loaded, adapters[0]).floor == NOISE_FLOOR[torch.float32]
    together = engine_vllm._logprobs_together
    monkeypatch.setattr(
        engine_vllm, "_logprobs_together", lambda of, many: together(of, many) + 0.002 * (len(many) > 1)
    )
    assert canary(loaded, adapters[0]).floor == pytest.approx(0.004, rel=1e-2)


def test_an_effect_within_the_noise_is_refused(loaded, tmp_path):
    weak = adapter_at(loaded, tmp_path / "weak", 3, std=1e-6)
    with pytest.raises(ModelError, match="within the noise"):
        canary(loaded, weak)


def test_a_base_of_other_weights_is_found_out():
    checked = Canary(((1, 2, 3),), np.array([-1.0, -2.0]), np.array([-0.5, -1.0]), NOISE_FLOOR[torch.float32])
    with pytest.raises(ModelError, match="base differs"):
        check_canary(checked, checked.base - 0.1, checked.adapted, "one")
    check_canary(checked, checked.base + 5e-4, checked.adapted - 5e-4, "one")


def test_the_benchmark_measures_vllm_bare_and_with_an_adapter(vllm):
    """The stand-in reads the random weights from the files that the benchmark writes, and answers as transformers."""
    loaded = shaped_model("tiny", "cpu")
    found = bench_sample(loaded, Silent(), personas=1, max_tokens=3, turns=1, engine="vllm")
    assert [one.work.split(",")[0] for one in found] == [
        "sample",
        "sample with vLLM",
        "sample with vLLM and an adapter",
    ]
    assert all(one.ours_per_second > 0 and one.difference < 1e-3 for one in found)
    assert loaded.model is loaded.causal
    assert not loaded.causal.config.name_or_path


def test_a_benchmark_of_a_vllm_that_serves_the_base_is_an_error(vllm):
    vllm.fault = "base"
    with pytest.raises(ModelError, match="serves the base"):
        bench_sample(shaped_model("tiny", "cpu"), Silent(), personas=1, max_tokens=3, turns=1, engine="vllm")


def test_vllm_makes_room_for_the_recipes_rank_and_says_where_it_has_none(loaded, vllm):
    assert VllmEngine(loaded, rank=33)._llm.settings["max_lora_rank"] == 64
    with pytest.raises(ModelError, match=r"up to rank 512; this recipe's is 513.*engine: transformers"):
        VllmEngine(loaded, rank=513)


def test_a_closed_engine_says_so(loaded, vllm):
    engine = VllmEngine(loaded)
    engine.close()
    engine.close()
    with pytest.raises(ModelError, match="closed"):
        next(engine.sample(REQUESTS, max_tokens=2))


def test_a_study_samples_with_what_is_on_and_the_memory_is_back_before_training(loaded, adapters, vllm):
    loaded.sampler = VllmSampler(4)
    try:
        plain = next(sample(loaded, REQUESTS, max_tokens=4))
        with loaded.adapter(adapters[0]):
            adapted = next(sample(loaded, REQUESTS, max_tokens=4))
        assert [one.id for one in plain] == [one.id for one in adapted] == ["0", "1", "2"]
        assert loaded.sampler._engine is not None
        fresh_adapter(loaded, {"r": 2, "target_modules": ["v_proj"]}, 0)
        assert loaded.sampler._engine is None
        loaded.remove_adapter()
        vllm.fault = "base"
        with loaded.adapter(adapters[1]), pytest.raises(ModelError, match="serves the base"):
            next(sample(loaded, REQUESTS, max_tokens=4))
    finally:
        loaded.close_sampler()
        loaded.sampler = None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # vLLM and what it brings warn of their own affairs
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_vllm_itself_serves_an_adapter(tmp_path, embedded):
    loaded = load("smollm2-135m", dtype="bfloat16" if torch.cuda.is_available() else "float32")
    path = adapter_at(loaded, tmp_path / "own", 5, std=0.05)
    checked = canary(loaded, path)
    with VllmEngine(loaded, memory=0.4, window=512) as engine:
        name = engine.serve(path, checked)
        assert name.startswith("own-")
        answers = next(engine.sample(REQUESTS, max_tokens=8))
        assert answers == next(engine.sample(REQUESTS, max_tokens=8))
