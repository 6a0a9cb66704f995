"""How many adapters fit on a device at once, and how many tokens a joint pass may have."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bystander.core.errors import ModelError
from bystander.lm.loaded import LoadedModel
from bystander.train.loop import MICRO_TOKENS

# Bytes for a parameter of an adapter beside its working copies: value, gradient and two moments in float32.
PARAMETER_BYTES = 16
SPARE = 0.85  # share of the free memory that is planned with: the rest is for kernels' scratch and what fragments
LEAST_TOKENS = 4096  # of a joint pass, that adapters must leave room for: below, a GPU is not filled
MOST_TOKENS = 24576  # above, a pass is no faster a token
MOST_SLOTS = 16
MOST_SLOTS_PLAIN = 8  # the plain pass gains nothing from more: what they cost is memory
LOSS_SHARE = 1 / 6  # of the tokens are in the loss, as an answer of 20 in a row of 120


@dataclass(frozen=True, slots=True)
class Room:
    """Slots of the stack, tokens of a training's micro-batch on the plain pass and of a joint pass, the precision that
    the adapters compute in, and whether passes are packed and captured in CUDA graphs."""

    slots: int
    micro_tokens: int
    pass_tokens: int
    dtype: torch.dtype
    packed: bool
    graphs: bool


def room_for(
    loaded: LoadedModel, parameters: int, jobs: int, slots: int | None, micro_tokens: int | None,
    pass_tokens: int | None, *, graphs: bool = False,
) -> Room:  # fmt: skip
    """Room for `jobs` adapters of so many parameters; what the caller gives stands. Raises ModelError where not even
    one adapter fits beside the model."""
    micro = micro_tokens or MICRO_TOKENS[loaded.device.type]
    if loaded.packed is None:
        return Room(
            slots or min(jobs, MOST_SLOTS_PLAIN), micro, pass_tokens or micro, torch.float32, packed=False, graphs=False
        )
    free, a_token = free_bytes(loaded.device) * SPARE, token_bytes(loaded)
    # Two working copies: the adapters in the base's precision, and their gradients before they are added up.
    an_adapter = parameters * (PARAMETER_BYTES + 2 * loaded.dtype.itemsize)
    fitting = int((free - LEAST_TOKENS * a_token) / an_adapter)
    if slots is None and fitting < 1:
        raise ModelError(
            f"{free / 2**30:.1f} GiB are free on the device; an adapter and a pass of {LEAST_TOKENS} tokens take "
            f"{(an_adapter + LEAST_TOKENS * a_token) / 2**30:.1f}. Use a smaller model or rank."
        )
    count = slots or min(jobs, fitting, MOST_SLOTS)
    tokens = pass_tokens or int(min(MOST_TOKENS, max(LEAST_TOKENS, (free - count * an_adapter) / a_token)))
    return Room(count, micro, tokens, loaded.dtype, packed=True, graphs=graphs)


def free_bytes(device: torch.device) -> int:
    """Memory of a GPU that this process can have: what nobody holds, and what it holds without using it."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def token_bytes(loaded: LoadedModel) -> float:
    """What a token of a pass keeps until its gradients are there. Counted from the layer (eight times its hidden size
    and four its inner one); a 7B model's measured 4.8 MB (10 GiB for 2,240 tokens) are nine tenths of it."""
    config = loaded.causal.config.get_text_config()
    kept = loaded.layers * (8 * config.hidden_size + 4 * config.intermediate_size) * loaded.dtype.itemsize
    logits = loaded.vocabulary * (loaded.dtype.itemsize + 8) * LOSS_SHARE  # in the model's precision, float32 twice
    return kept + logits
