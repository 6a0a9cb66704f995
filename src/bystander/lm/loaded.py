"""One resident base model; adapters are put on and taken off, never merged."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from bystander.core.errors import ModelError
from bystander.core.hashing import stable_hash
from bystander.core.records import Completion
from bystander.lm import adapters
from bystander.lm.adapter_base import Base, base_notes
from bystander.lm.attention import has_flash
from bystander.lm.packed import PackedForward, Segment, pack
from bystander.lm.tokens import Tokenizer

CANARY_TOKENS = 8
CANARY_NOISE = 2e-2  # of the largest logit: bfloat16 of two kernels
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
        self.notes: tuple[str, ...] = ()  # what is to be known of the adapter that is on
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
    def adapter(self, path: Path | str | None, *, base_ok: bool = False) -> Generator[LoadedModel]:
        """Within the block the adapter in folder `path` is on (None: the bare base); afterwards exactly the base.

        `notes` says then what is to be known of it, such as a base of another name. Raises ModelError as
        `adapters.read_adapter`, where it does not fit the base by shape or, unless `base_ok`, by the base's weights, and
        where the model with it answers a canary just as the base does (it was not applied).
        """
        if self._peft is not None:
            raise ModelError("another adapter is on already. Leave its block first: one adapter at a time.")
        if path is None:
            yield self
            return
        files = adapters.read_adapter(Path(path))
        notes = base_notes(files, self._base(), base_ok=base_ok)
        before = self._base_canary()
        self._peft = adapters.put_on(self.causal, files)
        self._adapter_hash = files.hash
        self._packed = None
        self.notes = notes
        try:
            if torch.equal(before, self._canary_logits()):
                raise ModelError(f"adapter {path} is on, but the model answers as without it. Its weights do nothing.")
            yield self
        finally:
            self.remove_adapter()

    def remove_adapter(self) -> None:
        """Take off the adapter that is on; nothing where there is none. Raises ModelError where the base then answers
        its canary otherwise than before."""
        if self._peft is None:
            return
        self.causal = adapters.take_off(self._peft)
        self._peft = None
        self._adapter_hash = None
        self._packed = None
        self.notes = ()
        if self._canary is None:
            return
        # On a GPU the same product may take another kernel once weights lie elsewhere; on a CPU it is the same to a bit.
        apart = float((self._canary - self._canary_logits()).abs().max())
        if apart > (0.0 if self.device.type == "cpu" else CANARY_NOISE * float(self._canary.abs().max())):
            raise ModelError(
                f"the base {self.name} is not what it was before the adapter was put on (its logits are {apart:.2g} off). "
                "Load the model anew, and do not use this adapter."
            )

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

    def _base(self) -> Base:
        return Base((self.base_id, self.name, str(self.causal.config.name_or_path)), self.base_hash)

    def _base_canary(self) -> Tensor:
        if self._canary is None:
            self._canary = self._canary_logits()
        return self._canary

    def _canary_logits(self) -> Tensor:
        """Logits, since an adapter may change nothing but the head."""
        with torch.no_grad():
            ids = torch.arange(1, CANARY_TOKENS + 1, device=self.device).unsqueeze(0)
            return self.head(self.body(input_ids=ids)).float()
