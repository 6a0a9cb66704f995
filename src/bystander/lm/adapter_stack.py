"""Several LoRA adapters of one shape, side by side in flat buffers.

Row k of a buffer is adapter k: first the A of every adapted map in the model's order, then every B. So clipping,
AdamW and a change of precision are one pass over a row, and maps that share an input (q, k and v; gate and up) have
their As next to each other: one product serves them without copying.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor
from transformers import PreTrainedModel

from bystander.core.errors import ModelError

ADAPTER = "default"
PREFIX = "base_model.model."  # of parameter names in a PeftModel


@dataclass(frozen=True, slots=True)
class Place:
    """Where a parameter lies in a row: `name` as PEFT calls it, `module` the map it belongs to in the base model."""

    name: str
    module: str
    part: str  # "A" or "B"
    offset: int
    shape: tuple[int, int]

    @property
    def size(self) -> int:
        """Numbers in it."""
        return self.shape[0] * self.shape[1]


@dataclass(frozen=True, slots=True)
class StackShape:
    """What all adapters of a stack have in common. `scale` is alpha over rank, or over its root."""

    places: tuple[Place, ...]
    scale: float
    dropout: float

    @property
    def parameters(self) -> int:
        """Numbers in one adapter."""
        return sum(place.size for place in self.places)


def shape_of_adapter(peft: PeftModel) -> StackShape:
    """The shape of the plain LoRA that is on. Raises ModelError for an adapter that is more than that."""
    trained = {name: p for name, p in peft.named_parameters() if p.requires_grad}
    base = cast(PreTrainedModel, peft.base_model.model)
    inside = f"{PREFIX}{base.base_model_prefix}."  # a head's input is no batch of whole rows any more
    places: list[Place] = []
    offset = 0
    for part in ("A", "B"):
        tail = f".lora_{part}.{ADAPTER}.weight"
        for name, parameter in trained.items():
            if name.endswith(tail) and name.startswith(inside):
                shape = cast(tuple[int, int], tuple(parameter.shape))
                places.append(Place(name, name.removeprefix(PREFIX).removesuffix(tail), part, offset, shape))
                offset += places[-1].size
    strange = set(trained) - {place.name for place in places}
    if strange or any(len(place.shape) != 2 for place in places):
        raise ModelError(
            f"adapters are trained together only as plain LoRAs on linear maps below the head; this one has {len(strange)} "
            f"other tensors ({', '.join(sorted(strange)[:2])}). Train it alone."
        )
    layers = [module for module in peft.modules() if isinstance(module, LoraLayer)]
    scales = {float(layer.scaling[ADAPTER]) for layer in layers}
    if len(scales) != 1:
        raise ModelError(f"adapters are trained together only with one scale; this one has {sorted(scales)}.")
    dropout = float(getattr(layers[0].lora_dropout[ADAPTER], "p", 0.0))
    return StackShape(tuple(places), scales.pop(), dropout)


class AdapterStack:
    """`values` and `gradients` [slots, parameters] in float32; `working` is what forward passes read: the values in
    the precision `dtype`, or the values themselves where that is float32. A slot may be free: its row then is zero."""

    def __init__(self, shape: StackShape, slots: int, device: torch.device, dtype: torch.dtype) -> None:
        self.shape = shape
        self.slots = slots
        self.values = torch.zeros((slots, shape.parameters), device=device)
        self.gradients = torch.zeros_like(self.values)
        self.working = self.values if dtype == torch.float32 else torch.zeros_like(self.values, dtype=dtype)
        self.by_name = {place.name: place for place in shape.places}

    def refresh(self) -> None:
        """Bring `working` to the values' state, after they changed."""
        if self.working is not self.values:
            self.working.copy_(self.values)

    def row(self, buffer: Tensor, slot: int) -> dict[str, Tensor]:
        """Of one slot the parameters by PEFT's names, as views."""
        return self.split(buffer[slot])

    def split(self, flat: Tensor) -> dict[str, Tensor]:
        """A row [parameters] as the parameters by PEFT's names: views of it."""
        places = self.shape.places
        return {place.name: flat[place.offset : place.offset + place.size].view(place.shape) for place in places}

    def join(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """A row [parameters] from the parameters by name: the other way of `split`. Raises ModelError for a parameter
        that is missing or has another shape."""
        for place in self.shape.places:
            if place.name not in tensors or tuple(tensors[place.name].shape) != place.shape:
                found = tuple(tensors[place.name].shape) if place.name in tensors else "nothing"
                raise ModelError(
                    f"the state of a training does not fit its recipe: {place.name} should be {place.shape}, and is "
                    f"{found}. It belongs to a training with another recipe or base."
                )
        return torch.cat([tensors[place.name].reshape(-1) for place in self.shape.places])

    def side_by_side(self, buffer: Tensor, names: Sequence[str]) -> Tensor:
        """Of all slots the named parameters as one view [slots, rows of all, columns]; they must lie next to each
        other."""
        places = [self.by_name[name] for name in names]
        for one, following in itertools.pairwise(places):
            assert one.offset + one.size == following.offset, f"{following.name} does not follow {one.name}"
        rows, columns = sum(place.shape[0] for place in places), places[0].shape[1]
        start = places[0].offset
        return buffer[:, start : start + rows * columns].view(self.slots, rows, columns)

    @torch.no_grad()
    def read(self, slot: int, peft: PeftModel) -> None:
        """Take an adapter's values into a slot."""
        self.values[slot].copy_(self.join(dict(peft.named_parameters())))

    @torch.no_grad()
    def write(self, slot: int, peft: PeftModel) -> None:
        """Give an adapter the values of a slot."""
        parameters = dict(peft.named_parameters())
        for name, value in self.row(self.values, slot).items():
            parameters[name].copy_(value)
