"""The base model as it was before an adapter was put on: modules by identity, touched values by copy."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from torch import Tensor, nn

PREFIX = "base_model.model."  # of the base's names inside a PeftModel


@dataclass(frozen=True, slots=True)
class Before:
    """What a base is made of, to be `put_back` after an adapter."""

    modules: dict[str, nn.Module]
    values: dict[str, Tensor]

    @classmethod
    def of(cls, base: nn.Module, *, everything: bool, biases: bool, named: Collection[str]) -> Before:
        """`everything`: all values are kept (in the host's memory), for adapters that rewrite the base's weights; else
        the biases, where those are trained, and what an adapter's file names of the base (`named`)."""
        held = {name.replace(".base_layer.", ".").removeprefix(PREFIX) for name in named}
        values = {
            name: value.detach().to("cpu", copy=True)
            for name, value in base.named_parameters()
            if everything or name in held or (biases and name.endswith(".bias"))
        }
        return cls({name: module for name, module in base.named_modules() if name}, values)

    def put_back(self, base: nn.Module) -> None:
        """PEFT leaves whole trained modules where they stand, and trained biases and rewritten weights as they are."""
        for name, module in self.modules.items():  # a parent comes before its children
            parent, _, child = name.rpartition(".")
            owner = base.get_submodule(parent)
            if getattr(owner, child) is not module:
                setattr(owner, child, module)
        parameters = dict(base.named_parameters())
        for name, value in self.values.items():
            parameter = parameters[name]
            if parameter.dtype == value.dtype:
                parameter.data.copy_(value)
            else:
                parameter.data = value.to(parameter.device)
