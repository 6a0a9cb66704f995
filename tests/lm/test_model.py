"""Loading, adapters on and off one resident base, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from bystander.core.errors import ModelError, StoreError
from bystander.core.hashing import file_sha256
from bystander.lm import embedded as embedded_model
from bystander.lm.model import LoadedModel, fresh_adapter, load, save_adapter
from bystander.lm.weights import checkpoint_hash, remembered_sha256

LORA = {"r": 4, "lora_alpha": 8, "use_rslora": True, "lora_dropout": 0.1, "target_modules": ["q_proj", "down_proj"]}
IDS = torch.tensor([[5, 9, 301, 42, 7]])


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint: Path) -> LoadedModel:
    return load(str(tiny_checkpoint), device="cpu")


@torch.no_grad()
def answer(loaded: LoadedModel) -> torch.Tensor:
    return loaded.head(loaded.body(input_ids=IDS))


def trained(loaded: LoadedModel, seed: int = 3) -> None:
    """A fresh adapter whose B is no longer zero, on `loaded`."""
    peft = fresh_adapter(loaded, LORA, seed)
    torch.manual_seed(seed)
    for name, parameter in peft.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.1)
    peft.eval()


@pytest.fixture
def adapter(tiny: LoadedModel, tmp_path: Path) -> Iterator[Path]:
    trained(tiny)
    save_adapter(tiny.model, tmp_path / "adapter", tiny.base_id)
    tiny.remove_adapter()
    yield tmp_path / "adapter"
    tiny.remove_adapter()


def test_body_and_head_are_the_model_s_own_logits(tiny: LoadedModel) -> None:
    own = tiny.causal(input_ids=IDS).logits
    assert torch.allclose(answer(tiny), own, atol=1e-5)
    assert (tiny.layers, tiny.window, tiny.vocabulary) == (3, 512, own.shape[-1])
    assert not any(parameter.requires_grad for parameter in tiny.causal.parameters())


def test_a_fresh_adapter_changes_nothing_and_is_seeded(tiny: LoadedModel) -> None:
    base, random_state = answer(tiny), torch.get_rng_state()
    hashes: list[str] = []
    for seed in (1, 1, 2):
        peft = fresh_adapter(tiny, LORA, seed).eval()
        assert torch.equal(answer(tiny), base)
        assert tiny.model is peft
        hashes.append(tiny.weights_hash)
        tiny.remove_adapter()
    assert hashes[0] == hashes[1] != hashes[2], "A must come from the seed"
    assert torch.equal(torch.get_rng_state(), random_state)


def test_adapters_leave_the_base_as_it_was(tiny: LoadedModel, adapter: Path) -> None:
    base = answer(tiny)
    modules = [(name, type(module)) for name, module in tiny.causal.named_modules()]
    weights = {name: value.clone() for name, value in tiny.causal.state_dict().items()}
    with tiny.adapter(adapter):
        assert not torch.allclose(answer(tiny), base, atol=1e-3)
        assert tiny.model is not tiny.causal
    assert tiny.model is tiny.causal
    assert torch.equal(answer(tiny), base)
    assert [(name, type(module)) for name, module in tiny.causal.named_modules()] == modules
    assert all(torch.equal(value, weights[name]) for name, value in tiny.causal.state_dict().items())
    assert tiny.weights_hash == tiny.base_hash


def test_what_was_saved_is_what_was_trained(tiny: LoadedModel, tmp_path: Path) -> None:
    trained(tiny)
    expected, expected_hash = answer(tiny), tiny.weights_hash
    (tmp_path / "once" / ".adapter-killed").mkdir(parents=True)
    for name in ("once", "twice"):
        save_adapter(tiny.model, tmp_path / name, "HuggingFaceTB/tiny-llama")
    tiny.remove_adapter()
    with tiny.adapter(tmp_path / "once"):
        assert torch.equal(answer(tiny), expected)
        assert tiny.weights_hash == expected_hash != tiny.base_hash
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "once" / file).read_bytes() == (tmp_path / "twice" / file).read_bytes()
    assert sorted(path.name for path in (tmp_path / "once").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("Error while serializing: I/O error: No space left on device (os error 28)", "no space left while writing"),
        ('Io error: Os { code: 28, kind: StorageFull, message: "No space left on device" }', "no space left while"),
        ("I/O error: Permission denied (os error 13)", "cannot write .*Permission denied"),
    ],
)
def test_an_adapter_that_cannot_be_written_leaves_the_old_one(
    words: str, says: str, tiny: LoadedModel, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_tensors: object, path: Path, metadata: object = None) -> None:
        path.write_bytes(b"half")
        raise SafetensorError(words)

    trained(tiny)
    before = {path.name: path.read_bytes() for path in adapter.iterdir()}
    monkeypatch.setattr("bystander.lm.tensor_file.save_file", refuse)
    with pytest.raises(StoreError, match=says):
        save_adapter(tiny.model, adapter, "HuggingFaceTB/tiny-llama")
    tiny.remove_adapter()
    assert {path.name: path.read_bytes() for path in adapter.iterdir()} == before


def test_the_base_is_back_after_an_error_inside_the_block(tiny: LoadedModel, adapter: Path) -> None:
    base = answer(tiny)
    with pytest.raises(ZeroDivisionError), tiny.adapter(adapter):
        _ = 1 / 0
    assert torch.equal(answer(tiny), base)


def test_scaling_and_weights_are_both_in_the_hash(tiny: LoadedModel, adapter: Path) -> None:
    def hash_now() -> str:
        with tiny.adapter(adapter):
            return tiny.weights_hash

    first = hash_now()
    edit(adapter, lora_alpha=9)
    second = hash_now()
    tensors = load_file(adapter / "adapter_model.safetensors")
    name = next(name for name in tensors if "lora_B" in name)
    tensors[name][0, 0] += 1e-3
    save_file(tensors, adapter / "adapter_model.safetensors")
    assert len({first, second, hash_now()}) == 3


def edit(adapter: Path, **values: object) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def zero_b(adapter: Path) -> None:
    tensors = load_file(adapter / "adapter_model.safetensors")
    save_file({k: v * 0 if "lora_B" in k else v for k, v in tensors.items()}, adapter / "adapter_model.safetensors")


def other_shape(adapter: Path) -> None:
    tensors = load_file(adapter / "adapter_model.safetensors")
    save_file(
        {k: torch.cat([v, v]) if "lora_B" in k else v for k, v in tensors.items()},
        adapter / "adapter_model.safetensors",
    )


def drop_one(adapter: Path) -> None:
    tensors = load_file(adapter / "adapter_model.safetensors")
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, adapter / "adapter_model.safetensors")


def only_pickled(adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda a: edit(a, peft_type="IA3"), "'IA3'; bystander uses LORA"),
        (lambda a: edit(a, target_modules=["query"]), "does not fit this model"),
        (lambda a: (a / "adapter_config.json").write_text("{"), "cannot be read"),
        (lambda a: (a / "adapter_model.safetensors").write_bytes(b"no"), "cannot be read"),
        (only_pickled, r"adapter_model.safetensors is missing.*Pickled"),
        (shutil.rmtree, "no such folder"),
        (zero_b, "B matrices are zero"),
        (other_shape, "does not fit this model"),
        (drop_one, "1 of its tensors are missing"),
    ],
)
def test_an_adapter_that_cannot_be_used_is_refused(tiny: LoadedModel, adapter: Path, harm: object, says: str) -> None:
    base = answer(tiny)
    harm(adapter)
    with pytest.raises(ModelError, match=says), tiny.adapter(adapter):
        pass
    assert torch.equal(answer(tiny), base), "a refused adapter must leave the base alone"
    assert tiny.model is tiny.causal


def test_one_adapter_at_a_time(tiny: LoadedModel, adapter: Path) -> None:
    with tiny.adapter(adapter):
        with pytest.raises(ModelError, match="another adapter is on"), tiny.adapter(adapter):
            pass
        with pytest.raises(ModelError, match="another adapter is on"):
            fresh_adapter(tiny, LORA, 0)
    with pytest.raises(ModelError, match="no adapter with these settings"):
        fresh_adapter(tiny, {**LORA, "target_modules": ["nothing_like_it"]}, 0)
    with tiny.adapter(None):
        assert tiny.model is tiny.causal


def test_models_that_cannot_be_loaded(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="no-such/model-at-all cannot be loaded"):
        load("no-such/model-at-all")
    with pytest.raises(ModelError, match=r"no config\.json"):
        load(str(tmp_path))
    with pytest.raises(ModelError, match="device 'tpu9' is unknown"):
        load(str(tiny_checkpoint), device="tpu9")
    with pytest.raises(ModelError, match=r"device 'cuda:99' is not there"):
        load(str(tiny_checkpoint), device="cuda:99")
    own_code = shutil.copytree(tiny_checkpoint, tmp_path / "own-code")
    config = json.loads((own_code / "config.json").read_text())
    config |= {
        "model_type": "mine",
        "auto_map": {"AutoConfig": "mine.MyConfig", "AutoModelForCausalLM": "mine.MyModel"},
    }
    (own_code / "config.json").write_text(json.dumps(config))
    (own_code / "mine.py").write_text("raise SystemExit('code from a repository was run')")
    with pytest.raises(ModelError, match="run code of its own"):
        load(str(own_code))
    pickled = shutil.copytree(tiny_checkpoint, tmp_path / "pickled")
    torch.save(load_file(pickled / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="pickled cannot be loaded"):
        load(str(pickled))
    untemplated = shutil.copytree(tiny_checkpoint, tmp_path / "base-model")
    (untemplated / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match="no chat template"):
        load(str(untemplated))


def test_hashes_follow_the_weights(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BYSTANDER_CACHE", str(tmp_path / "cache"))
    copy = shutil.copytree(tiny_checkpoint, tmp_path / "copy")
    assert checkpoint_hash(copy) == checkpoint_hash(tiny_checkpoint)
    file = copy / "model.safetensors"
    assert remembered_sha256(file) == file_sha256(file)
    tensors = load_file(file)
    tensors["model.norm.weight"][0] += 1
    save_file(tensors, file, metadata={"format": "pt"})
    os.utime(file, ns=(1, 1))
    assert remembered_sha256(file) == file_sha256(file)
    assert checkpoint_hash(copy) != checkpoint_hash(tiny_checkpoint)
    blob = tmp_path / "blobs" / ("ab" * 32)
    blob.parent.mkdir()
    blob.write_bytes(b"a blob of the Hub's cache is named by its hash")
    link = tmp_path / "linked.safetensors"
    link.symlink_to(blob)
    assert remembered_sha256(link) == "ab" * 32


def test_the_embedded_model_answers_sensibly(embedded: Path) -> None:
    loaded = load("smollm2-135m", device="cpu", dtype="float32")
    assert loaded.base_id == embedded_model.HUB_ID
    assert loaded.causal.get_output_embeddings().weight is loaded.causal.get_input_embeddings().weight
    text = loaded.tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}], tokenize=False, add_generation_prompt=True
    )
    ids = torch.tensor([loaded.tokenizer(text, add_special_tokens=False)["input_ids"]])
    out = loaded.causal.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
    assert loaded.tokenizer.decode(out[0, ids.shape[1] :]) == "The capital of France is Paris.<|im_end|>"
