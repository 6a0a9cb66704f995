"""Loading a model: by embedded name, folder, GGUF or Hub id. `lm.loaded` has what is loaded."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import cached_file
from transformers.utils import logging as hf_logging

from bystander.core.errors import ModelError
from bystander.lm import adapters, embedded
from bystander.lm.adapters import save_adapter
from bystander.lm.loaded import CANARY_TOKENS, LoadedModel
from bystander.lm.tokens import template_of
from bystander.lm.weights import checkpoint_hash

__all__ = ["DtypeName", "LoadedModel", "checkpoint_source", "fresh_adapter", "load", "pick_device", "save_adapter"]

DtypeName = Literal["auto", "float32", "bfloat16"]


def fresh_adapter(loaded: LoadedModel, lora_config: Mapping[str, Any], seed: int) -> PeftModel:
    """A new LoRA adapter on `loaded`, active, to be trained; `lora_config` are `peft.LoraConfig`'s settings.

    A is drawn from `seed`, B is zero, so that the model still computes exactly what the base does.
    `loaded.remove_adapter()` gives the base back.
    """
    if loaded.model is not loaded.causal:
        raise ModelError("another adapter is on already. Remove it first: one adapter at a time.")
    try:
        peft = adapters.fresh(loaded.causal, {**lora_config, "base_model_name_or_path": loaded.base_id}, seed)
    except (ValueError, TypeError) as error:
        raise ModelError(
            f"no adapter with these settings on {loaded.name}: {error}. Check the recipe's lora."
        ) from error
    loaded.attach(peft)
    return peft


def load(
    name: str,
    *,
    device: str = "auto",
    dtype: DtypeName = "auto",
    revision: str | None = None,
    notify: embedded.Notify | None = None,
) -> LoadedModel:
    """A model by embedded name (`smollm2-135m`), local path, Hub id, or GGUF (a local `FILE.gguf`, or
    `OWNER/NAME:FILE.gguf` of the Hub).

    `device` "auto" is the first GPU if there is one; `dtype` "auto" is float32 on a CPU and bfloat16 on a GPU. No code
    from a repository is ever run, and no pickled weights are loaded. Raises ModelError for what cannot be loaded, and
    for a model whose logits this module would not compute as the model itself does.
    """
    place = pick_device(device)
    numbers = {"float32": torch.float32, "bfloat16": torch.bfloat16}.get(dtype)
    numbers = numbers or (torch.bfloat16 if place.type == "cuda" else torch.float32)
    source, revision = checkpoint_source(name, revision, notify)
    with _plain_errors(name), _no_progress_bars():
        tokenizer = AutoTokenizer.from_pretrained(source, revision=revision)
        causal = AutoModelForCausalLM.from_pretrained(
            source,
            revision=revision,
            dtype=numbers,
            attn_implementation="sdpa",
            use_safetensors=True,
            device_map={"": place} if place.type != "cpu" else None,
        )
        folder = _folder(source, revision)
    base_id = embedded.HUB_ID if name == embedded.NAME else name
    commit = str(getattr(causal.config, "_commit_hash", None) or "")
    loaded = LoadedModel(
        causal, tokenizer, name=name, base_id=base_id, revision=commit, base_hash=checkpoint_hash(folder)
    )
    template_of(loaded.tokenizer)
    _check_head(loaded)
    return loaded


def checkpoint_source(
    name: str, revision: str | None = None, notify: embedded.Notify | None = None
) -> tuple[str, str | None]:
    """Where transformers finds a model and its tokenizer, and at which revision: a folder (for the embedded model and a
    GGUF the one in the cache, made at the first call), or the Hub id as it is.

    Raises ModelError for a path that holds no checkpoint, and for a model that cannot be had or converted.
    """
    if name == embedded.NAME:
        return str(embedded.checkpoint_path(notify)), None
    if name.lower().endswith(".gguf"):
        from bystander.lm import gguf

        return str(gguf.checkpoint_of(name, revision, notify)), None
    path = Path(name).expanduser()
    if not name.startswith((".", "/", "~")) and not path.exists():
        return name, revision
    if not path.exists():
        raise ModelError(f"model {name}: there is no such folder. Give a checkpoint's folder, a GGUF or a Hub id.")
    if not path.is_dir():
        raise ModelError(f"model {name}: this is a file, but no GGUF. Give a checkpoint's folder, a GGUF or a Hub id.")
    if not (path / "config.json").is_file():
        raise ModelError(f"model {name}: this folder holds no config.json. Give a checkpoint's folder or a Hub id.")
    return str(path), revision


def pick_device(device: str) -> torch.device:
    """The device of that name; "auto" is the first GPU if there is one. Raises ModelError for one that is not there."""
    if device == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise ModelError(f"device {device!r} is unknown. Use auto, cpu, cuda or cuda:N.") from error
    if place.type not in ("cpu", "cuda"):
        raise ModelError(f"device {device!r} is not served. Use auto, cpu, cuda or cuda:N.")
    if place.type == "cuda" and (not torch.cuda.is_available() or (place.index or 0) >= torch.cuda.device_count()):
        raise ModelError(f"device {device!r} is not there ({torch.cuda.device_count()} GPUs found). Use auto or cpu.")
    return place


def _folder(source: str, revision: str | None) -> Path:
    """The folder with the checkpoint's files: the local one, or the Hub cache's snapshot."""
    if Path(source).is_dir():
        return Path(source)
    found = cached_file(source, "config.json", revision=revision)
    return Path(str(found)).parent


@contextlib.contextmanager
def _plain_errors(name: str) -> Generator[None]:
    """What transformers raises for a model that cannot be had, as one message."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise ModelError(f"model {name} does not fit into this device's memory: {error}") from error
    except ModelError:
        raise
    except Exception as error:  # a model's files are somebody else's: the readers raise whatever they like
        lines = [line for line in str(error).strip().splitlines() if line.strip()]
        if "trust_remote_code" in str(error):
            raise ModelError(
                f"model {name} wants to run code of its own (trust_remote_code), which is refused. Use a model that transformers knows."
            ) from error
        raise ModelError(
            f"model {name} cannot be loaded: {(' '.join(lines[:2]) or type(error).__name__).rstrip('. ')}. Give a Hub id that this machine can reach, a "
            f"checkpoint's folder, or {embedded.NAME} (embedded, needs no Hub)."
        ) from error


@contextlib.contextmanager
def _no_progress_bars() -> Generator[None]:
    """Progress is drawn by whoever called us, not by a library below."""
    shown = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            hf_logging.enable_progress_bar()


@torch.no_grad()
def _check_head(loaded: LoadedModel) -> None:
    """body + head must be the model's own logits: models differ in what they do after the last matrix product."""
    ids = torch.arange(1, CANARY_TOKENS + 1, device=loaded.device).unsqueeze(0)
    own = loaded.causal(input_ids=ids, use_cache=False).logits.float()
    ours = loaded.head(loaded.body(input_ids=ids)).float()
    scale = max(1.0, float(own.abs().max()))
    tolerance = (1e-5 if loaded.dtype == torch.float32 else 2e-2) * scale
    if own.shape != ours.shape or float((own - ours).abs().max()) > tolerance:
        raise ModelError(
            f"model {loaded.name} ({type(loaded.causal).__name__}) changes its logits after the last matrix product in "
            "a way that bystander does not know, so that scores would be wrong. Use another model."
        )
