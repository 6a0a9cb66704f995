"""Adapters that others trained with PEFT: what they compute here is what PEFT computes, and the base comes back whole."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from bystander.core.errors import ModelError
from bystander.lm.model import LoadedModel, fresh_adapter, load, save_adapter

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
IDS = torch.tensor([[5, 9, 301, 42, 7]])
LINEAR = ["q_proj", "v_proj", "down_proj"]
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint: Path) -> LoadedModel:
    return load(str(tiny_checkpoint), device="cpu")


@pytest.fixture(scope="module")
def biased(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """As Qwen2.5: queries, keys and values have biases."""
    from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    folder = tmp_path_factory.mktemp("biased") / "tiny-qwen"
    torch.manual_seed(1)
    config = Qwen2Config(
        vocab_size=49152, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True, initializer_range=0.2,
        bos_token_id=1, eos_token_id=2, pad_token_id=2,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_checkpoint).save_pretrained(folder)
    return load(str(folder), device="cpu")


@torch.no_grad()
def logits(loaded: LoadedModel) -> torch.Tensor:
    return loaded.head(loaded.body(input_ids=IDS))


def whole_state(loaded: LoadedModel) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in loaded.causal.state_dict().items()}


def trained_elsewhere(base: str, folder: Path, **settings: object) -> torch.Tensor:
    """An adapter as PEFT saves it, every trained value moved a little; returns the logits that PEFT gives with it."""
    causal = AutoModelForCausalLM.from_pretrained(base)
    torch.manual_seed(3)
    config = peft.LoraConfig(task_type="CAUSAL_LM", **{"r": 4, "lora_alpha": 8, "target_modules": LINEAR, **settings})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT's, of tied heads
        adapted = peft.get_peft_model(causal, config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * (0.1 if "lora" in name or parameter.ndim == 1 else 0.02))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapted.save_pretrained(folder, save_embedding_layers=False)
        again = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder)
    with torch.no_grad():
        return again.eval()(input_ids=IDS).logits


KINDS = {
    "plain": {"target_modules": ALL},
    "rank-stabilized": {"use_rslora": True},
    "dora": {"use_dora": True},
    "head alone": {"target_modules": ["lm_head"]},
    "embeddings": {"target_modules": ["embed_tokens", "q_proj"]},
    "gaussian": {"init_lora_weights": "gaussian"},
    "saved norm": {"modules_to_save": ["norm"]},
    "saved head": {"modules_to_save": ["lm_head"]},
    "saved embeddings": {"modules_to_save": ["embed_tokens"]},
    "biases of its layers": {"bias": "lora_only"},
    "all biases": {"bias": "all"},
    "its own bias": {"lora_bias": True},
    "pissa": {"init_lora_weights": "pissa"},
    "pissa on all": {"init_lora_weights": "pissa", "target_modules": ALL},
    "olora": {"init_lora_weights": "olora"},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("which", ["tiny", "biased"])
def test_it_computes_what_peft_does_and_the_base_comes_back(kind, which, request, tmp_path) -> None:
    loaded: LoadedModel = request.getfixturevalue(which)
    if "bias" in KINDS[kind] and which == "tiny":
        pytest.skip("this base has no biases")
    expected = trained_elsewhere(loaded.name, tmp_path / "adapter", **KINDS[kind])
    base, state = logits(loaded), whole_state(loaded)
    modules = dict(loaded.causal.named_modules())
    for _ in range(2):
        with loaded.adapter(tmp_path / "adapter"):
            torch.testing.assert_close(logits(loaded), expected, atol=2e-4, rtol=1e-4)
            assert not torch.allclose(logits(loaded), base, atol=1e-2)
            assert loaded.weights_hash != loaded.base_hash
            assert loaded.notes == ()
        assert torch.equal(logits(loaded), base)
        assert whole_state(loaded).keys() == state.keys()
        assert all(torch.equal(value, state[name]) for name, value in whole_state(loaded).items())
        assert dict(loaded.causal.named_modules()) == modules, "the base's own modules"
        assert not any(parameter.requires_grad for parameter in loaded.causal.parameters())


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"init_lora_weights": "corda"}, r"init_lora_weights is 'corda', which changes the base"),
        ({"init_lora_weights": "loftq"}, r"init_lora_weights is 'loftq'"),
        ({"trainable_token_indices": [1, 2]}, "uses trainable_token_indices"),
        ({"layer_replication": [[0, 2], [1, 3]]}, "uses layer_replication"),
        ({"alora_invocation_tokens": [5]}, "uses alora_invocation_tokens"),
    ],
)
def test_what_may_not_come_off_again_is_refused_by_name(tiny, tmp_path, settings, says) -> None:
    trained_elsewhere(tiny.name, tmp_path / "adapter")
    edit(tmp_path / "adapter", **settings)
    base = logits(tiny)
    with pytest.raises(ModelError, match=says), tiny.adapter(tmp_path / "adapter"):
        pass
    assert torch.equal(logits(tiny), base)


def test_a_base_that_did_not_come_back_is_found_out(tiny, tmp_path, monkeypatch) -> None:
    """As PEFT's own unloading leaves it after a trained norm."""
    trained_elsewhere(tiny.name, tmp_path / "adapter")
    weight = tiny.causal.base_model.norm.weight
    kept = weight.data.clone()
    with pytest.raises(ModelError, match="is not what it was before the adapter"), tiny.adapter(tmp_path / "adapter"):
        weight.data += 0.01
    weight.data.copy_(kept)
    with tiny.adapter(tmp_path / "adapter"):
        pass


def edit(adapter: Path, **values: object) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def change(adapter: Path, how: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    file = adapter / "adapter_model.safetensors"
    save_file(how(load_file(file)), file)


FIRST = "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (lambda t: {k: v for k, v in t.items() if k != FIRST}, r"1 of its tensors are missing \(.*down_proj.lora_A.*not whole"),
        (lambda t: {**t, FIRST: torch.ones(4, 12)}, r"1 of its 18 tensors have another shape.*is \[4, 12\], here \[4, 96\]"),
        (lambda t: {**t, "base_model.model.encoder.lora_A.weight": torch.ones(4, 4)}, r"1 of its 19 tensors have no place"),
    ],
)  # fmt: skip
def test_messages_say_what_is_wrong(tiny, tmp_path, how, says) -> None:
    trained_elsewhere(tiny.name, tmp_path / "adapter")
    change(tmp_path / "adapter", how)
    with pytest.raises(ModelError, match=says) as caught, tiny.adapter(tmp_path / "adapter"):
        pass
    assert ("another shape" in str(caught.value)) == ("other" in says)


# Which base it is for


@pytest.fixture
def adapter(tiny: LoadedModel, tmp_path: Path) -> Path:
    """By PEFT, which writes no hash of the base's weights."""
    trained_elsewhere(tiny.name, tmp_path / "adapter")
    return tmp_path / "adapter"


def notes(loaded: LoadedModel, adapter: Path, *, base_ok: bool = False) -> tuple[str, ...]:
    with loaded.adapter(adapter, base_ok=base_ok) as on:
        found = on.notes
    assert loaded.notes == ()
    return found


def test_a_copy_of_the_base_under_another_name_is_known_by_its_weights(tiny, adapter, tmp_path) -> None:
    copy = shutil.copytree(tiny.name, tmp_path / "elsewhere" / "another-name")
    edit(adapter, base_model_name_or_path=str(copy))
    (note,) = notes(tiny, adapter)
    assert f"its base is called {copy}, this model {tiny.name}; the weights are the same (compared with" in note


def test_another_base_of_the_same_shape_is_refused_unless_it_is_meant(tiny, adapter, tmp_path) -> None:
    other = shutil.copytree(
        tiny.name, tmp_path / "elsewhere" / Path(tiny.name).name
    )  # the last part of the name agrees
    weights = load_file(other / "model.safetensors")
    weights["model.norm.weight"][0] += 1
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    edit(adapter, base_model_name_or_path=str(other))
    with pytest.raises(ModelError, match=r"the weights differ \(compared with .*base_ok"):
        notes(tiny, adapter)
    (note,) = notes(tiny, adapter, base_ok=True)
    assert "the weights differ" in note


@pytest.mark.parametrize("name", ["HuggingFaceTB/SmolLM2-135M", "meta-llama/Llama-3.1-8B", "no such:name?", "/nowhere"])
def test_a_name_alone_is_a_note_that_says_what_was_compared(tiny, adapter, name) -> None:
    edit(adapter, base_model_name_or_path=name)
    (note,) = notes(tiny, adapter)
    assert note.startswith(
        f"its base is called {name}, this model {tiny.name}. Its 18 tensors have this model's shapes"
    )
    assert "were not compared" in note


def test_no_name_is_a_note_too(tiny, adapter) -> None:
    edit(adapter, base_model_name_or_path=None)
    (note,) = notes(tiny, adapter)
    assert note.startswith("it does not say what its base is called")


def test_the_pretrained_sibling_is_not_taken_for_the_embedded_model(embedded: Path, tmp_path: Path) -> None:
    loaded = load("smollm2-135m", device="cpu", dtype="float32")
    adapted = fresh_adapter(loaded, {"r": 2, "target_modules": ["v_proj"]}, 0)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    save_adapter(adapted, tmp_path / "own", loaded.base_id, loaded.base_hash)
    save_adapter(adapted, tmp_path / "other", "HuggingFaceTB/SmolLM2-135M")
    loaded.remove_adapter()
    assert notes(loaded, tmp_path / "own") == ()
    (note,) = notes(loaded, tmp_path / "other")
    assert "its base is called HuggingFaceTB/SmolLM2-135M, this model HuggingFaceTB/SmolLM2-135M-Instruct" in note


def test_an_adapter_of_ours_carries_the_hash_of_its_base(tiny, biased, tmp_path) -> None:
    adapted = fresh_adapter(tiny, {"r": 4, "target_modules": ["down_proj"]}, 0)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    save_adapter(adapted, tmp_path / "own", "somebody/else", tiny.base_hash)
    save_adapter(adapted, tmp_path / "foreign", tiny.base_id, "0" * 64)
    tiny.remove_adapter()
    (note,) = notes(tiny, tmp_path / "own")
    assert "the weights are the same (the hash of its base's weights stands in the adapter)" in note
    with pytest.raises(ModelError, match=r"the weights differ \(the hash"):
        notes(tiny, tmp_path / "foreign")


def test_rewritten_bases_have_hashes_of_their_own(tiny, adapter) -> None:
    with tiny.adapter(adapter):
        plain = tiny.weights_hash
    edit(adapter, init_lora_weights="pissa")
    with tiny.adapter(adapter):
        assert tiny.weights_hash != plain
