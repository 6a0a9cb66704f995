"""LoRA adapters in PEFT's format: read and check, put on, take off, save. Never merged."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from bystander.core.errors import ModelError
from bystander.core.hashing import stable_hash
from bystander.lm.weights import tensors_hash

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
# The settings of a LoRA that, with its tensors, decide what it computes.
DECISIVE = ("r", "lora_alpha", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "fan_in_fan_out", "bias")


@dataclass(frozen=True, slots=True)
class AdapterFiles:
    """An adapter as it lies on disk, checked."""

    path: Path
    config: LoraConfig
    tensors: dict[str, Tensor]
    hash: str


def adapter_hash(config: LoraConfig, tensors: Mapping[str, Tensor]) -> str:
    """One hash (64 hex digits) of what an adapter computes: its tensors and the settings that scale them."""
    settings = {key: getattr(config, key, None) for key in DECISIVE}
    return stable_hash("adapter", settings, tensors_hash(tensors))


def read_adapter(path: Path, base_names: Sequence[str]) -> AdapterFiles:
    """An adapter directory, checked as far as that goes without the model.

    Raises ModelError for missing or broken files, for an adapter that is no LoRA, for one whose
    `base_model_name_or_path` is none of `base_names`, and for one whose B matrices are all zero (it changes nothing).
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
    _check_base(path, config, base_names)
    try:
        tensors = load_file(path / WEIGHTS_FILE)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"adapter {path}: {WEIGHTS_FILE} cannot be read ({error}). Copy or train it again.") from error
    lora_b = {name: value for name, value in tensors.items() if "lora_B" in name or "lora_embedding_B" in name}
    if not any(bool(value.any()) for value in lora_b.values()):
        raise ModelError(
            f"adapter {path}: all {len(lora_b)} B matrices are zero, so that it changes nothing. It was not trained, or "
            "its weights were not saved."
        )
    return AdapterFiles(path, config, tensors, adapter_hash(config, tensors))


def _read_config(path: Path) -> LoraConfig:
    file = path / CONFIG_FILE
    try:
        raw = json.loads(file.read_text())
        if raw.get("peft_type") != "LORA":
            raise ModelError(
                f"adapter {path}: its type is {raw.get('peft_type')!r}; bystander uses LORA adapters only."
            )
        return cast(LoraConfig, LoraConfig.from_pretrained(str(path)))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"adapter {path}: {CONFIG_FILE} cannot be read: {error}. Save the adapter again.") from error


def _check_base(path: Path, config: LoraConfig, base_names: Sequence[str]) -> None:
    wanted = config.base_model_name_or_path
    if not wanted:
        raise ModelError(
            f"adapter {path}: {CONFIG_FILE} does not say which base model it is for. Set base_model_name_or_path there "
            f"(this model is {base_names[0]})."
        )
    # A local copy or a mirror keeps the last part of the name; shapes are checked when the tensors are put in.
    if _last_part(wanted) not in {_last_part(name) for name in base_names}:
        raise ModelError(
            f"adapter {path} was trained on {wanted}, but the model here is {base_names[0]}. "
            "Load its own base model, or name another adapter."
        )


def _last_part(name: str) -> str:
    return name.replace("\\", "/").rstrip("/").rsplit("/", maxsplit=1)[-1].lower()


def put_on(base: PreTrainedModel, files: AdapterFiles) -> PeftModel:
    """The adapter on the base, in eval mode, without gradients. Raises ModelError where it does not fit the base."""
    config = files.config
    config.inference_mode = True
    try:
        peft = _wrap(base, config, seed=0)  # every value that the seed decides is replaced by the file's
    except ValueError as error:
        raise ModelError(f"adapter {files.path} does not fit this model: {error}.") from error
    try:
        loaded = set_peft_model_state_dict(peft, files.tensors)
        missing = [name for name in loaded.missing_keys if "lora_" in name]
        strange = list(loaded.unexpected_keys)
        if missing or strange:
            raise ModelError(
                f"adapter {files.path} does not fit this model: {len(missing)} of its tensors are missing "
                f"({', '.join(missing[:2])}) and {len(strange)} have no place ({', '.join(strange[:2])})."
            )
    except (RuntimeError, KeyError) as error:
        take_off(peft)
        first = str(error).strip().splitlines()
        raise ModelError(
            f"adapter {files.path} does not fit this model: {' '.join(first[:2])}. It is for a base of another shape."
        ) from error
    except ModelError:
        take_off(peft)
        raise
    return peft.eval()


def fresh(base: PreTrainedModel, settings: Mapping[str, Any], seed: int) -> PeftModel:
    """A new adapter for training on the base: B zero, A drawn from `seed`, weights in float32.

    `settings` are LoraConfig's. The global random state is left as it was.
    """
    return _wrap(base, LoraConfig(task_type="CAUSAL_LM", **settings), seed)


def _wrap(base: PreTrainedModel, config: LoraConfig, seed: int) -> PeftModel:
    device = base.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        # PEFT asks transformers for a property by its old name.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return PeftModel(cast(nn.Module, base), config)


def take_off(peft: PeftModel) -> PreTrainedModel:
    """The base without the adapter: its own modules again, as before the adapter was put on."""
    base = cast(PreTrainedModel, peft.unload())
    if hasattr(base, "peft_config"):
        del base.peft_config
    base.requires_grad_(False)
    return base.eval()


def state_of(peft: PeftModel) -> dict[str, Tensor]:
    """The adapter's tensors under the names of PEFT's format."""
    return get_peft_model_state_dict(peft, save_embedding_layers=False)


def live_hash(peft: PeftModel) -> str:
    """The hash of an adapter as it stands now in memory; equal to `read_adapter`'s once it is saved."""
    return adapter_hash(cast(LoraConfig, peft.peft_config["default"]), state_of(peft))


def save_adapter(peft: PeftModel, folder: Path, base_id: str) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors`; `base_id` is the base model's Hub id.

    Written by hand, since PEFT's own saving asks the Hub about the base and adds a model card.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().cpu().contiguous() for name, value in state_of(peft).items()}
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
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
