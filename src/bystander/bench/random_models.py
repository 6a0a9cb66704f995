"""Models of a published shape with random weights: speed does not depend on weights, so nothing is downloaded."""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config

from bystander.core.errors import ModelError
from bystander.lm.embedded import checkpoint_path
from bystander.lm.model import LoadedModel, fresh_adapter, pick_device
from bystander.train.recipe import Lora

SEED = 0


@dataclass(frozen=True, slots=True)
class BenchShape:
    """The numbers of a Qwen2.5 model's config.json that decide its speed."""

    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool


BENCH_SHAPES: dict[str, BenchShape] = {  # the config.json of Qwen/Qwen2.5-*-Instruct
    "qwen2.5-0.5b": BenchShape(896, 4864, 24, 14, 2, 151936, True),
    "qwen2.5-1.5b": BenchShape(1536, 8960, 28, 12, 2, 151936, True),
    "qwen2.5-3b": BenchShape(2048, 11008, 36, 16, 2, 151936, True),
    "qwen2.5-7b": BenchShape(3584, 18944, 28, 28, 4, 152064, False),
    "qwen2.5-14b": BenchShape(5120, 13824, 48, 40, 8, 152064, False),
}


def shaped_model(name: str, device: str) -> LoadedModel:
    """A model of the shape `name`, weights random (normal, 0.02, from one seed), bfloat16 on a GPU and float32 on a CPU.

    Its tokenizer is the embedded model's, so that prompts are real ones. Raises ModelError for an unknown shape.
    """
    if name not in BENCH_SHAPES:
        raise ModelError(f"--shape {name!r} is unknown; known: {', '.join(BENCH_SHAPES)}.")
    shape = BENCH_SHAPES[name]
    place = pick_device(device)
    dtype = torch.bfloat16 if place.type == "cuda" else torch.float32
    tokenizer = AutoTokenizer.from_pretrained(checkpoint_path())
    config = Qwen2Config(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.inner,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads,
        max_position_embeddings=4096, rms_norm_eps=1e-6, tie_word_embeddings=shape.tied,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    with torch.random.fork_rng([place] if place.type == "cuda" else []), torch.device(place):
        torch.manual_seed(SEED)
        causal = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    return LoadedModel(
        causal, tokenizer, name=f"{name}, random weights", base_id=name, revision="", base_hash=f"random-{SEED}-{name}"
    )


def random_adapter(loaded: LoadedModel, lora: Lora, std: float) -> PeftModel:
    """An adapter that is on, B's entries normal with that standard deviation (a fresh one's are 0 and change nothing)."""
    adapter = fresh_adapter(loaded, lora.peft(), SEED)
    generator = torch.Generator(loaded.device).manual_seed(SEED + 1)
    with torch.no_grad():
        for name, parameter in adapter.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0.0, std, generator=generator)
    return adapter


@contextmanager
def with_files(loaded: LoadedModel) -> Generator[None]:
    """The model's weights and tokenizer in files that its configuration names, for what reads models from there; those
    of random weights are written for as long as this lasts."""
    config = loaded.causal.config
    if config.name_or_path:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="bystander-shape-") as folder:
        loaded.causal.save_pretrained(folder)
        cast(Any, loaded.tokenizer).save_pretrained(folder)
        config.name_or_path = folder
        try:
            yield
        finally:
            config.name_or_path = ""
