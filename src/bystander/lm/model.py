"""One resident base model; adapters are put on and taken off, never merged."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import torch
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils import cached_file
from transformers.utils import logging as hf_logging

from bystander.core.errors import ModelError
from bystander.core.hashing import stable_hash
from bystander.core.records import Completion
from bystander.lm import adapters, embedded
from bystander.lm.adapters import save_adapter
from bystander.lm.attention import has_flash
from bystander.lm.packed import PackedForward, Segment, pack
from bystander.lm.tokens import Tokenizer, template_of
from bystander.lm.weights import checkpoint_hash

__all__ = ["DtypeName", "LoadedModel", "fresh_adapter", "load", "save_adapter"]

DtypeName = Literal["auto", "float32", "bfloat16"]
CANARY_TOKENS = 8
PACKED_CANARY = (
    "The quick brown fox jumps over the lazy dog while the sun goes down behind the hills, and the children of the "
    "village walk home along the river, singing what their grandparents taught them before the old mill stood still."
)
# Largest relative distance of a token's last hidden state, in the median over the canary, at which two bfloat16 passes
# count as the same function. Measured: 0.016 for the embedded model (each 0.014 from float32), 0.055 for random weights
# in the shape of Qwen2.5-7B (0.044 between two batches of `body` itself). The median, since in bfloat16 the few tokens
# with very large activations are ten times as far apart.
PACKED_APART = 0.15


class Sampler(Protocol):
    """An engine that samples for a LoadedModel, with whatever adapter is on it, and can give its memory back."""

    def sample(
        self, loaded: LoadedModel, requests: Sequence[Any], temperature: float, max_tokens: int
    ) -> Iterator[list[Completion]]: ...
    def close(self) -> None: ...


class LoadedModel:
    """A base model with its tokenizer and, at times, one adapter on it.

    `name` is what the user asked for; `base_id` what an adapter should name as its base (a Hub id where there is one);
    `revision` the Hub commit, "" for a local checkpoint; `base_hash` the hash of the base's weights and config.
    """

    def __init__(
        self, causal: PreTrainedModel, tokenizer: Tokenizer, *, name: str, base_id: str, revision: str, base_hash: str
    ) -> None:
        causal.requires_grad_(False)
        self.causal: PreTrainedModel = causal.eval()
        self.tokenizer = tokenizer
        self.name = name
        self.base_id = base_id
        self.revision = revision
        self.base_hash = base_hash
        self._peft: PeftModel | None = None
        self._adapter_hash: str | None = None  # known for an adapter from disk; one in training changes all the time
        self._canary: Tensor | None = None
        self.sampler: Sampler | None = None  # another engine that samples in this one's place
        self._packed: PackedForward | str | None = None  # a text: why there is none; None: not made yet

    @property
    def packed(self) -> PackedForward | None:
        """The fast forward pass for the model as it stands, where there is one: see `plain_because`."""
        if self._packed is None:
            self._packed = self._packed_or_reason()
        return None if isinstance(self._packed, str) else self._packed

    @property
    def plain_because(self) -> str:
        """Why `body` is all there is (the same numbers, slower); "" where there is a fast forward pass."""
        return "" if self.packed is not None else str(self._packed)

    @torch.no_grad()
    def _packed_or_reason(self) -> PackedForward | str:
        """The fast forward pass once it has answered a canary as `body` does: a wrong one must not give numbers."""
        if not has_flash(next(self.causal.parameters())):
            return "it needs a GPU and bfloat16"
        try:
            forward = PackedForward(self.causal)
        except ValueError as error:
            return str(error)
        ids = torch.tensor(self.tokenizer(PACKED_CANARY, add_special_tokens=False)["input_ids"], device=self.device)
        own = self.body(input_ids=ids[None])[0].float()
        try:
            ours = forward.hidden(pack([Segment(ids.cpu().numpy())], self.device)).float()
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # no compiler for the generated code, or a card without these kernels
            return f"the fast pass does not run here: {(str(error).strip() or type(error).__name__).splitlines()[0]}"
        apart = float(((own - ours).norm(dim=-1) / own.norm(dim=-1)).median())
        return forward if apart < PACKED_APART else f"it differs from the model's own forward pass by {apart:.2g}"

    @property
    def model(self) -> PreTrainedModel | PeftModel:
        """The model as it stands: a PeftModel while an adapter is on."""
        return self.causal if self._peft is None else self._peft

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.causal.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the base's weights."""
        return self.causal.dtype

    @property
    def window(self) -> int:
        """The longest sequence in tokens that the model takes."""
        return int(getattr(self.causal.config.get_text_config(), "max_position_embeddings", 0) or 1 << 30)

    @property
    def layers(self) -> int:
        """Number of blocks; hidden states are numbered 0 (embeddings) to this (after the last block)."""
        return int(self.causal.config.get_text_config().num_hidden_layers)

    @property
    def vocabulary(self) -> int:
        """Logits a place."""
        return int(self.causal.config.get_text_config().vocab_size)

    @property
    def weights_hash(self) -> str:
        """Hash of the base and of the adapter that is on. While an adapter is trained it is computed anew each time
        (tens of milliseconds on a small model): read it once per probe, not once per item."""
        if self._peft is None:
            return self.base_hash
        return stable_hash(self.base_hash, self._adapter_hash or adapters.live_hash(self._peft))

    def body(self, **inputs: Any) -> Tensor:
        """Last hidden states [batch, length, hidden], final norm applied; keywords as for the transformers model."""
        inputs.setdefault("use_cache", inputs.get("past_key_values") is not None)
        return self.causal.base_model(**inputs).last_hidden_state

    def head(self, hidden: Tensor) -> Tensor:
        """Logits [..., vocabulary] of hidden states [..., hidden], in the model's dtype, with the scaling or capping
        that some models apply after the matrix product."""
        logits = cast(torch.nn.Module, self.causal.get_output_embeddings())(hidden)
        config = self.causal.config.get_text_config()
        scale = getattr(config, "logit_scale", None)  # Cohere multiplies
        if scale is not None:
            logits = logits * scale
        divisor = getattr(config, "logits_scaling", None)  # Granite divides
        if divisor is not None:
            logits = logits / divisor
        cap = getattr(config, "final_logit_softcapping", None)  # Gemma 2: cap * tanh(logits / cap)
        return logits if cap is None else torch.tanh(logits / cap) * cap

    @contextlib.contextmanager
    def adapter(self, path: Path | str | None) -> Generator[LoadedModel]:
        """Within the block the adapter in folder `path` is on (None: the bare base); afterwards exactly the base.

        Raises ModelError as `adapters.read_adapter`, where it does not fit the base, and where the model with it
        answers a canary just as the base does (it was not applied).
        """
        if self._peft is not None:
            raise ModelError("another adapter is on already. Leave its block first: one adapter at a time.")
        if path is None:
            yield self
            return
        files = adapters.read_adapter(Path(path), self._base_names())
        before = self._canary_states()
        self._peft = adapters.put_on(self.causal, files)
        self._adapter_hash = files.hash
        self._packed = None
        try:
            if torch.equal(before, self._canary_forward()):
                raise ModelError(f"adapter {path} is on, but the model answers as without it. Its weights do nothing.")
            yield self
        finally:
            self.remove_adapter()

    def remove_adapter(self) -> None:
        """Take off the adapter that is on; nothing where there is none."""
        if self._peft is not None:
            self.causal = adapters.take_off(self._peft)
        self._peft = None
        self._adapter_hash = None
        self._packed = None

    def close_sampler(self) -> None:
        """Let another sampling engine give its memory back; it opens again when it is asked."""
        if self.sampler is not None:
            self.sampler.close()

    def attach(self, peft: PeftModel) -> None:
        """Make a PeftModel made on `causal` the active adapter, as one in training."""
        self.close_sampler()
        self._peft = peft
        self._adapter_hash = None
        self._packed = None

    def _base_names(self) -> list[str]:
        return [self.base_id, self.name, str(self.causal.config.name_or_path)]

    def _canary_states(self) -> Tensor:
        if self._canary is None:
            self._canary = self._canary_forward()
        return self._canary

    @torch.no_grad()
    def _canary_forward(self) -> Tensor:
        ids = torch.arange(1, CANARY_TOKENS + 1, device=self.device).unsqueeze(0)
        return self.body(input_ids=ids)


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
    """A model by embedded name (`smollm2-135m`), local path or Hub id.

    `device` "auto" is the first GPU if there is one; `dtype` "auto" is float32 on a CPU and bfloat16 on a GPU. No code
    from a repository is ever run, and no pickled weights are loaded. Raises ModelError for what cannot be loaded, and
    for a model whose logits this module would not compute as the model itself does.
    """
    place = pick_device(device)
    numbers = {"float32": torch.float32, "bfloat16": torch.bfloat16}.get(dtype)
    numbers = numbers or (torch.bfloat16 if place.type == "cuda" else torch.float32)
    source = str(embedded.checkpoint_path(notify)) if name == embedded.NAME else name
    if source == name and (name.startswith((".", "/", "~")) or Path(name).expanduser().exists()):
        source = str(Path(name).expanduser())
        if not (Path(source) / "config.json").is_file():
            raise ModelError(f"model {name}: this folder holds no config.json. Give a checkpoint's folder or a Hub id.")
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


def pick_device(device: str) -> torch.device:
    """The device of that name; "auto" is the first GPU if there is one. Raises ModelError for one that is not there."""
    if device == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise ModelError(f"device {device!r} is unknown. Use auto, cpu, cuda or cuda:N.") from error
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
    except (OSError, ValueError, ImportError, KeyError) as error:
        lines = [line for line in str(error).strip().splitlines() if line.strip()]
        if "trust_remote_code" in str(error):
            raise ModelError(
                f"model {name} wants to run code of its own (trust_remote_code), which is refused."
            ) from error
        raise ModelError(
            f"model {name} cannot be loaded: {' '.join(lines[:2])} Give a Hub id that this machine can reach, a "
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
