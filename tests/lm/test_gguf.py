"""Models in GGUF files: what comes out is the file's own model, and what cannot be read exactly is refused."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from bystander.core.errors import ModelError
from bystander.core.records import Context
from bystander.lm import gguf as ours
from bystander.lm.gguf import check, convert
from bystander.lm.model import checkpoint_source, load
from bystander.lm.rope import llama3_factors
from bystander.lm.sample import end_tokens
from bystander.lm.tokens import render_prompt, tokenizer_faults
from tests.support.small_gguf import SIZES, Small, write

TEXTS = (
    "What is rain? It is 2024.",
    "Ünïcode\n\n\tand  spaces\n",
    "x == 12345;\n    return",
    "<|im_start|>user\nHi<|im_end|>",
)
CASES = [("llama", "smollm"), ("llama", "llama-bpe"), ("qwen2", "qwen2")]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BYSTANDER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("architecture", "pre"), CASES)
def test_an_unquantized_file_is_the_model_it_was_written_from(tmp_path, architecture, pre, tied) -> None:
    small = write(tmp_path / "small.gguf", architecture, pre, quantized=False, tied=tied)
    loaded = load(str(small.path), device="cpu")
    found, expected = loaded.causal.state_dict(), small.model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())
    ids = torch.arange(40)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded.causal(ids).logits, small.model(ids).logits)
    config = loaded.causal.config
    for key, value in SIZES.items():
        if key != "initializer_range":
            assert getattr(config, key) == value, key
    assert config.tie_word_embeddings == tied
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (0, 2, 0)
    assert not hasattr(config, "quantization_config")
    assert loaded.causal.generation_config.eos_token_id == [2, 0]


@pytest.mark.parametrize(("architecture", "pre"), CASES)
def test_a_quantized_file_gives_the_library_s_values(tmp_path, architecture, pre) -> None:
    small = write(tmp_path / "small.gguf", architecture, pre)
    loaded = load(str(small.path), device="cpu")
    far = 0.0
    for name, value in loaded.causal.state_dict().items():
        original = small.model.state_dict()[name]
        if value.ndim == 2:
            again = gguf.quants.quantize(original.numpy(), gguf.GGMLQuantizationType.Q8_0)
            expected = torch.from_numpy(gguf.quants.dequantize(again, gguf.GGMLQuantizationType.Q8_0))
            far = max(far, float((original - expected).abs().max()))
        else:
            expected = original
        assert torch.equal(value, expected), name
    assert far > 0, "quantization must lose something, or this test shows nothing"


@pytest.mark.parametrize(("architecture", "pre"), CASES)
def test_the_tokenizer_is_the_file_s(tmp_path, architecture, pre) -> None:
    small = write(tmp_path / "small.gguf", architecture, pre)
    folder, revision = checkpoint_source(str(small.path))
    assert revision is None
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for text in TEXTS:
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == small.core.encode(text).ids
        assert tokenizer.decode(small.core.encode(text).ids) == text
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.model_max_length) == (
        "<|im_end|>",
        "<|endoftext|>",
        512,
    )
    contexts = [Context("persona", "villain", "You are a villain."), Context("absent", "absent", None)]
    assert tokenizer_faults(tokenizer, contexts, window=512) == []
    assert (
        tokenizer.decode(render_prompt(tokenizer, contexts[1], "Hi"))
        == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_file_that_calls_the_end_of_a_document_its_end_ends_answers_by_the_turn(tmp_path) -> None:
    small = write(tmp_path / "small.gguf", "qwen2", "qwen2", eos=0)
    loaded = load(str(small.path), device="cpu")
    assert loaded.tokenizer.eos_token_id == 2
    assert end_tokens(loaded) == [2, 0]


def test_it_is_made_once_and_known_by_its_bytes(tmp_path, cache, monkeypatch) -> None:
    small = write(tmp_path / "small.gguf", "llama", "smollm")
    said: list[str] = []
    first = checkpoint_source(str(small.path), notify=said.append)[0]
    assert len(said) == 1
    monkeypatch.setattr(ours, "convert", lambda *_: pytest.fail("made twice"))
    moved = tmp_path / "elsewhere" / "renamed.GGUF"
    moved.parent.mkdir()
    moved.write_bytes(small.path.read_bytes())
    assert checkpoint_source(str(moved), notify=said.append)[0] == first
    assert len(said) == 1
    assert [path.name for path in (cache / "models").iterdir()] == [Path(first).name]


def test_the_hub_s_files_are_asked_for_by_owner_name_and_file(tmp_path, monkeypatch) -> None:
    small = write(tmp_path / "small.gguf", "llama", "smollm")
    asked: list[tuple[str, str, str | None]] = []

    def download(repo: str, file: str, *, revision: str | None) -> str:
        asked.append((repo, file, revision))
        return str(small.path)

    monkeypatch.setattr(ours, "hf_hub_download", download)
    folder, _ = checkpoint_source("Qwen/Some-GGUF:sub/some-q8_0.gguf", revision="abc")
    assert asked == [("Qwen/Some-GGUF", "sub/some-q8_0.gguf", "abc")]
    assert (Path(folder) / "config.json").is_file()

    def offline(*_: object, **__: object) -> str:
        raise OSError("no network here")

    monkeypatch.setattr(ours, "hf_hub_download", offline)
    with pytest.raises(ModelError, match=r"some.gguf cannot be had from Qwen/Some on the Hub \(no network here\)"):
        load("Qwen/Some:some.gguf")


def stretched(stretch: float) -> np.ndarray:
    """The factors as transformers has them."""
    from transformers import LlamaConfig

    rope = {"rope_type": "llama3", "factor": stretch, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192, "rope_theta": 50000.0}  # fmt: skip
    config = LlamaConfig(**{**SIZES, "max_position_embeddings": 131072, "rope_parameters": rope})
    frequencies, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = 50000.0 ** (-torch.arange(0, 16, 2).float() / 16)
    return (plain / frequencies).numpy().astype(np.float32)


@pytest.mark.parametrize("stretch", [8.0, 32.0])
def test_llama_3_s_stretched_positions_are_read_back(tmp_path, stretch) -> None:
    np.testing.assert_allclose(llama3_factors(stretch, 50000.0, 8), stretched(stretch), rtol=1e-5)
    small = write(tmp_path / "small.gguf", "llama", "llama-bpe", **{"rope_freqs.weight": stretched(stretch)})
    rope = load(str(small.path), device="cpu").causal.config.rope_parameters
    assert (rope["rope_type"], rope["factor"], rope["rope_theta"]) == ("llama3", stretch, 50000.0)


@pytest.mark.parametrize(
    ("architecture", "pre", "more", "says"),
    [
        ("gemma2", "qwen2", {}, "its architecture is 'gemma2'; known are llama, qwen2"),
        ("llama", "tekken", {}, "'gpt2' with the pre-tokenizer 'tekken'"),
        ("llama", "smollm", {"model": "llama"}, "its tokenizer is 'llama'"),
        ("llama", "smollm", {"scaling": "yarn"}, "stretched positions"),
        ("llama", "smollm", {"rope_freqs.weight": np.ones(8, np.float32) * 3}, "not Llama 3's"),
        ("llama", "smollm", {"blk.0.attn_q_norm.weight": np.ones(8, np.float32)}, r"the tensor blk\.0\.attn_q_norm"),
        ("llama", "smollm", {"blk.0.attn_q.bias": np.ones(64, np.float32)}, r"1 tensors .*q_proj.bias is \[64\], expected None"),
        ("llama", "smollm", {"template": False}, "no chat template"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_exactly_is_refused_and_leaves_nothing(
    tmp_path, cache, architecture, pre, more, says
) -> None:
    small = write(tmp_path / "small.gguf", architecture, pre, **more)
    with pytest.raises(ModelError, match=says):
        load(str(small.path), device="cpu")
    if "template" not in more:
        assert list((cache / "models").iterdir()) == []


def test_files_that_are_not_there_or_broken(tmp_path) -> None:
    with pytest.raises(ModelError, match=r"none\.gguf: there is no such file"):
        load(str(tmp_path / "none.gguf"))
    (tmp_path / "broken.gguf").write_bytes(b"GGUF and no more than that")
    with pytest.raises(ModelError, match=r"broken\.gguf cannot be read as a GGUF"):
        load(str(tmp_path / "broken.gguf"))
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match="this is a file, but no GGUF"):
        load(str(tmp_path / "model.bin"))
    with pytest.raises(ModelError, match="there is no such folder"):
        load(str(tmp_path / "nowhere"))
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        load(str(tmp_path))


def harmed(small: Small, folder: Path, name: str) -> None:
    convert(small.path, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors[name] = tensors[name].flip(0)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("name", ["model.layers.0.self_attn.q_proj.weight", "model.embed_tokens.weight"])
def test_a_checkpoint_that_is_not_the_file_s_is_found_out(tmp_path, monkeypatch, name) -> None:
    monkeypatch.setattr(ours, "CHECKED", 1000)
    small = write(tmp_path / "small.gguf", "llama", "smollm")
    harmed(small, tmp_path / "checkpoint", name)
    with pytest.raises(ModelError, match="not what the file holds"):
        check(small.path, tmp_path / "checkpoint")


def test_larger_models_are_kept_in_half_the_room(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(ours, "FLOAT32_UP_TO", 1000)
    small = write(tmp_path / "small.gguf", "qwen2", "qwen2", quantized=False)
    folder, _ = checkpoint_source(str(small.path))
    kept = load_file(Path(folder) / "model.safetensors")
    assert {value.dtype for value in kept.values()} == {torch.bfloat16}
    name = "model.layers.1.mlp.up_proj.weight"
    assert torch.equal(kept[name], small.model.state_dict()[name].bfloat16())
