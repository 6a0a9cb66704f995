"""LoRA adapters in PEFT's format: read and check, put on, take off, save. Never merged."""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import PreTrainedModel

from bystander.core.errors import ModelError
from bystander.core.files import explained
from bystander.core.hashing import stable_hash
from bystander.lm.restore import Before
from bystander.lm.tensor_file import save_tensors
from bystander.lm.weights import tensors_hash

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
# The settings of a LoRA that, with its tensors, decide what it computes.
DECISIVE = ("r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "fan_in_fan_out", "bias")
BASE_HASH = "base_weights"  # in the metadata of the adapters that bystander saves
# Ways to draw a fresh adapter that leave the base alone: what they drew is replaced by the file's tensors anyway.
PLAIN_INITS = (True, False, None, "gaussian", "orthogonal", "eva")
# Ways that rewrite the base's weights when the adapter is put on (Meng et al. 2024, arXiv 2404.02948; Büyükakyüz 2024,
# arXiv 2406.01775).
REWRITING_INITS = ("pissa", "olora")
# Settings beyond a LoRA on whole layers, of which nobody here knows whether they come off again.
UNKNOWN_KINDS = (
    "trainable_token_indices", "target_parameters", "layer_replication", "alora_invocation_tokens", "use_qalora",
    "megatron_config", "velora_config", "monteclora_config", "use_bdlora", "arrow_config", "kasa_config",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class AdapterFiles:
    """An adapter as it lies on disk, checked. `base_hash`: of its base's weights, "" where the files do not say."""

    path: Path
    config: LoraConfig
    tensors: dict[str, Tensor]
    hash: str
    base_hash: str = ""


def adapter_hash(config: LoraConfig, tensors: Mapping[str, Tensor]) -> str:
    """One hash (64 hex digits) of what an adapter computes: its tensors and the settings that scale them."""
    settings = {key: getattr(config, key, None) for key in DECISIVE}
    if rewrites_base(config):
        settings["init_lora_weights"] = config.init_lora_weights
    return stable_hash("adapter", settings, tensors_hash(tensors))


def rewrites_base(config: LoraConfig) -> bool:
    """Whether putting the adapter on changes the base's own weights."""
    return _rewrites(config.init_lora_weights)


def _rewrites(drawn: object) -> bool:
    return str(drawn).lower().split("_niter_")[0] in REWRITING_INITS


def read_adapter(path: Path) -> AdapterFiles:
    """An adapter directory, checked as far as that goes without the model.

    Raises ModelError for missing or broken files, for an adapter that is no LoRA or of a kind that may not come off
    again, and for one that changes nothing (all B matrices zero, and nothing else in it).
    """
    if not path.is_dir():
        raise ModelError(f"adapter {path}: there is no such folder. Give the folder that holds {CONFIG_FILE}.")
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (path / name).is_file():
            pickled = (
                " Pickled weights (adapter_model.bin) are not loaded: convert them." if name == WEIGHTS_FILE else ""
            )
            raise ModelError(f"adapter {path}: {name} is missing.{pickled} A PEFT adapter has both files.")
    config = _read_config(path)
    tensors, told = _read_tensors(path)
    lora_b = [value for name, value in tensors.items() if "lora_B" in name or "lora_embedding_B" in name]
    if all("lora_" in name for name in tensors) and not any(bool(value.any()) for value in lora_b):
        raise ModelError(
            f"adapter {path}: all {len(lora_b)} B matrices are zero, so that it changes nothing. It was not trained, or "
            "its weights were not saved."
        )
    return AdapterFiles(path, config, tensors, adapter_hash(config, tensors), told.get(BASE_HASH, ""))


def _read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path / WEIGHTS_FILE, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"adapter {path}: {WEIGHTS_FILE} cannot be read ({error}). Copy or train it again.") from error


def _check_kind(path: Path, raw: Mapping[str, object]) -> None:
    for name in UNKNOWN_KINDS:
        if raw.get(name):
            raise ModelError(
                f"adapter {path}: it uses {name}, which bystander cannot take off again for certain. Train a plain LoRA."
            )
    drawn = raw.get("init_lora_weights", True)
    if drawn not in PLAIN_INITS and not _rewrites(drawn):
        raise ModelError(
            f"adapter {path}: init_lora_weights is {drawn!r}, which changes the base model in training. Save it as a plain "
            "LoRA (PEFT's save_pretrained with path_initial_model_for_weight_conversion)."
        )


def _read_config(path: Path) -> LoraConfig:
    file = path / CONFIG_FILE
    try:
        raw = json.loads(file.read_text())
        if raw.get("peft_type") != "LORA":
            raise ModelError(
                f"adapter {path}: its type is {raw.get('peft_type')!r}; bystander uses LORA adapters only."
            )
        _check_kind(path, raw)
        return cast(LoraConfig, LoraConfig.from_pretrained(str(path)))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"adapter {path}: {CONFIG_FILE} cannot be read: {error}. Save the adapter again.") from error


def put_on(base: PreTrainedModel, files: AdapterFiles) -> PeftModel:
    """The adapter on the base, in eval mode, without gradients. Raises ModelError where it does not fit the base, which
    is then as it was."""
    config = files.config
    config.inference_mode = True
    if not rewrites_base(config):
        config.init_lora_weights = True  # whatever is drawn is replaced by the file's tensors
    try:
        peft = _wrap(base, config, seed=0, named=files.tensors)
    except ValueError as error:
        raise ModelError(f"adapter {files.path} does not fit this model: {error}.") from error
    try:
        _check_tensors(peft, files)
        set_peft_model_state_dict(peft, dict(files.tensors))
    except BaseException as error:
        take_off(peft)
        if not isinstance(error, RuntimeError | KeyError | ValueError):
            raise
        first = " ".join(str(error).strip().splitlines()[:2])
        raise ModelError(f"adapter {files.path} does not fit this model: {first}.") from error
    return peft.eval()


def _check_tensors(peft: PeftModel, files: AdapterFiles) -> None:
    """Every tensor of the file has a place of its shape in the model, and every tensor of the adapter is in the file."""
    places = {name: value.shape for name, value in peft.state_dict().items()}
    own = {name: value.shape for name, value in state_of(peft).items()}
    places |= own
    called = files.config.base_model_name_or_path
    here = f"adapter {files.path} (of {called or 'a base without a name'}) does not fit this model: "
    strange = sorted(files.tensors.keys() - places.keys())
    if strange:
        raise ModelError(
            f"{here}{len(strange)} of its {len(files.tensors)} tensors have no place ({', '.join(strange[:2])}). It is for "
            "a base with other layers."
        )
    wrong = [name for name, value in sorted(files.tensors.items()) if value.shape != places[name]]
    if wrong:
        name = wrong[0]
        raise ModelError(
            f"{here}{len(wrong)} of its {len(files.tensors)} tensors have another shape ({name} is "
            f"{list(files.tensors[name].shape)}, here {list(places[name])}). It is for a base of another shape."
        )
    missing = sorted(own.keys() - files.tensors.keys())
    if missing:
        raise ModelError(
            f"{here}{len(missing)} of its tensors are missing ({', '.join(missing[:2])}). {WEIGHTS_FILE} is not whole, or "
            f"is not the one that {CONFIG_FILE} describes: save or copy the adapter again."
        )


def fresh(base: PreTrainedModel, settings: Mapping[str, Any], seed: int) -> PeftModel:
    """A new adapter for training on the base: B zero, A drawn from `seed`, weights in float32.

    `settings` are LoraConfig's. The global random state is left as it was.
    """
    return _wrap(base, LoraConfig(task_type="CAUSAL_LM", **settings), seed)


def _wrap(base: PreTrainedModel, config: LoraConfig, seed: int, named: Collection[str] = ()) -> PeftModel:
    device = base.device
    before = Before.of(base, everything=rewrites_base(config), biases=config.bias != "none", named=named)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        # PEFT asks transformers for a property by its old name, and warns of merging a tied head, which nobody does here.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                peft = PeftModel(cast(nn.Module, base), config)
            except BaseException:  # half of it may be on
                _bare(base, before)
                raise
    _before[peft] = before
    return peft


# The base as it was, of each adapter that is on.
_before: WeakKeyDictionary[PeftModel, Before] = WeakKeyDictionary()


def take_off(peft: PeftModel) -> PreTrainedModel:
    """The base without the adapter: its own modules and values again, as before the adapter was put on."""
    base = cast(PreTrainedModel, peft.unload())
    return _bare(base, _before.pop(peft))


def _bare(base: PreTrainedModel, before: Before) -> PreTrainedModel:
    before.put_back(base)
    if hasattr(base, "peft_config"):
        del base.peft_config
    base.requires_grad_(False)
    return base.eval()


def state_of(peft: PeftModel) -> dict[str, Tensor]:
    """The adapter's tensors under the names of PEFT's format."""
    # With a state of ours PEFT does not judge shapes, of which it knows those of plain LoRAs only.
    return get_peft_model_state_dict(peft, state_dict=peft.state_dict(), save_embedding_layers=False)


def live_hash(peft: PeftModel) -> str:
    """The hash of an adapter as it stands now in memory; equal to `read_adapter`'s once it is saved."""
    return adapter_hash(cast(LoraConfig, peft.peft_config["default"]), state_of(peft))


def save_adapter(peft: PeftModel, folder: Path, base_id: str, base_hash: str = "") -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors`; `base_id` is the base model's Hub id, `base_hash` the
    hash of its weights, by which the adapter knows its base again under any name.

    Written by hand, since PEFT's own saving asks the Hub about the base and adds a model card. Raises StoreError for a
    full disk or a folder that cannot be written; then neither file is new.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in state_of(peft).items()}
    metadata = {"format": "pt"} | ({BASE_HASH: base_hash} if base_hash else {})
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".adapter-*"):  # of a process that was killed in here
            rmtree(leftover, ignore_errors=True)
        with TemporaryDirectory(prefix=".adapter-", dir=folder) as scratch:
            made = Path(scratch)
            save_tensors(tensors, made / WEIGHTS_FILE, metadata)
            _save_config(peft, made, base_id)
            for name in (WEIGHTS_FILE, CONFIG_FILE):  # a rename takes no space: both or none
                (made / name).replace(folder / name)


def _save_config(peft: PeftModel, folder: Path, base_id: str) -> None:
    config = cast(LoraConfig, peft.peft_config["default"])
    before = config.base_model_name_or_path, config.inference_mode
    config.base_model_name_or_path, config.inference_mode = base_id, True
    try:
        config.save_pretrained(str(folder))
    finally:
        config.base_model_name_or_path, config.inference_mode = before
    written = json.loads((folder / CONFIG_FILE).read_text())
    if isinstance(written["target_modules"], list):  # a set in PEFT: sorted, so that two runs write the same bytes
        written["target_modules"].sort()
    (folder / CONFIG_FILE).write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")
