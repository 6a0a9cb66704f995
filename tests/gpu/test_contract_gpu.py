"""On a GPU in bfloat16: the packed way (FlashAttention, captured graphs, compiled layers) and the plain one held together.

    python3 -m pytest tests/gpu -m gpu -W default

BYSTANDER_GPU_MODEL names the model (a folder, a GGUF, a Hub id); without it a model in the shape of Qwen2.5-1.5B with random
weights is made, for which every tenth token ends an answer.
"""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer as Core
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from bystander.lm.loaded import LoadedModel
from bystander.lm.model import fresh_adapter, load
from tests.reference import held
from tests.support.small_tokenizer import CHATML, core_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("default"),  # other versions of torch and transformers warn of other things
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
SHAPE = {  # Qwen/Qwen2.5-1.5B-Instruct
    "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
    "num_key_value_heads": 2, "max_position_embeddings": 4096, "vocab_size": 151936, "tie_word_embeddings": True,
}  # fmt: skip
# Tokens an answer: some answers of a real model, and some of random weights (one end in ten), end within so many.
MOST = 24 if os.environ.get("BYSTANDER_GPU_MODEL") else 12
LORA = {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"]}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    named = os.environ.get("BYSTANDER_GPU_MODEL")
    return load(named or str(random_model(tmp_path_factory.mktemp("random"))), device="cuda", dtype="bfloat16")


def random_model(folder: Path) -> Path:
    """Random weights in the shape of Qwen2.5-1.5B; a small tokenizer, filled up to that vocabulary."""
    core = core_of("qwen2")
    made = core.to_str()
    used = core.get_vocab_size()
    inner = Core.from_str(made)
    inner.add_tokens([f"word{i}" for i in range(SHAPE["vocab_size"] - used)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = CHATML
    with torch.device("cuda"):
        torch.manual_seed(0)
        causal = Qwen2ForCausalLM(Qwen2Config(**SHAPE, eos_token_id=2, pad_token_id=0)).to(torch.bfloat16)
    causal.generation_config.eos_token_id = list(range(2, SHAPE["vocab_size"], 10))
    causal.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(params=["base", "adapter"])
def model(request: pytest.FixtureRequest, loaded: LoadedModel) -> Iterator[LoadedModel]:
    """The bare model, or one with a random adapter that changes what it says but not beyond sense."""
    if request.param == "adapter":
        adapter = fresh_adapter(loaded, LORA, 3).eval()
        torch.manual_seed(5)
        for name, parameter in adapter.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.005)
    yield loaded
    loaded.remove_adapter()


@pytest.fixture
def says(request: pytest.FixtureRequest, covered: list[str]) -> Iterator[list[str]]:
    """What a test found, under its name, with the time it took."""
    found: list[str] = []
    started = time.perf_counter()
    yield found
    covered += [f"{request.node.name}: {line} ({time.perf_counter() - started:.0f} s)" for line in found]


def test_the_machine(loaded: LoadedModel, says: list[str]) -> None:
    """The packed way is on, as it is in a study."""
    assert loaded.dtype == torch.bfloat16
    assert loaded.packed is not None, loaded.plain_because
    import peft
    import transformers

    says.append(
        f"{loaded.name} on {torch.cuda.get_device_name()}, torch {torch.__version__}, transformers "
        f"{transformers.__version__}, peft {peft.__version__}"
    )


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_answers(model: LoadedModel, temperature: float, says: list[str]) -> None:
    says.append(held.check_answers(model, temperature, MOST))


def test_scores(model: LoadedModel, says: list[str]) -> None:
    says.append(held.check_scores(model))


def test_states(model: LoadedModel, says: list[str]) -> None:
    says.append(held.check_states(model))


def test_rows(loaded: LoadedModel, says: list[str]) -> None:
    says.append(held.check_prompts_and_rows(loaded))


def test_training(loaded: LoadedModel, says: list[str]) -> None:
    exact = load(loaded.name, device="cuda", dtype="float32")
    says.append(held.check_training(loaded, exact))


def test_the_base_comes_back(loaded: LoadedModel, says: list[str], tmp_path: Path) -> None:
    """An adapter on and off, and the base's numbers are what they were."""
    from bystander.lm.model import save_adapter

    before = held.dict_of(held.score(loaded, held.CONTEXTS, held.ITEMS))
    adapter = fresh_adapter(loaded, LORA, 3)
    for name, parameter in adapter.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.01)
    save_adapter(adapter, tmp_path / "own", loaded.base_id, loaded.base_hash)
    loaded.remove_adapter()
    with loaded.adapter(tmp_path / "own") as on:
        adapted = held.per_token(before, held.dict_of(held.score(on, held.CONTEXTS, held.ITEMS)))
    again = held.per_token(before, held.dict_of(held.score(loaded, held.CONTEXTS, held.ITEMS)))
    assert adapted > 10 * again
    assert again < 1e-3
    says.append(f"an adapter moves scores by {adapted:.2g} nats a token; without it they are {again:.2g} from before")


@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
def test_answers_of_vllm(loaded: LoadedModel, says: list[str]) -> None:
    """Its records are true, and its greedy tokens are the plain way's."""
    from bystander.lm import engine_vllm

    real = engine_vllm.completion
    found: list[held.Answered] = []

    def record(loaded, request, prompt, answer, ends, max_tokens):
        one = real(loaded, request, prompt, answer, ends, max_tokens)
        found.append(held.Answered(request, list(prompt), list(answer), one))
        return one

    engine_vllm.completion = record
    try:
        with engine_vllm.VllmEngine(loaded, memory=0.5, window=1024) as engine:
            list(engine.sample(held.requests(), temperature=0.0, max_tokens=MOST))
    finally:
        engine_vllm.completion = real
    held.check_records(loaded, found, MOST)
    off = [x for one in found for x in held.off_draw(loaded, one, 0.0)]
    assert sum(off) / len(off) < held.PROBABILITY
    says.append(f"{len(found)} answers of vLLM: greedy tokens off by {sum(off) / len(off):.2g}")
