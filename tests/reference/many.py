"""Several trainings the slow way: one after the other, each alone."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from bystander.lm.loaded import LoadedModel
from bystander.lm.model import fresh_adapter
from bystander.train.loop import Event, train
from bystander.train.many import Job


def train_each(
    loaded: LoadedModel, jobs: Sequence[Job], **settings: int | None
) -> dict[str, tuple[list[Event], dict[str, Tensor]]]:
    """Per job its events and the adapter's tensors at its end, by name."""
    found: dict[str, tuple[list[Event], dict[str, Tensor]]] = {}
    for job in jobs:
        adapter = fresh_adapter(loaded, job.recipe.lora.peft(), job.adapter_seed)
        events = list(
            train(loaded, job.rows, job.recipe, job.seed, checkpoints=job.checkpoints, state=job.state, **settings)
        )
        weights = {name: p.detach().clone() for name, p in adapter.named_parameters() if p.requires_grad}
        found[job.name] = events, weights
        loaded.remove_adapter()
    return found
