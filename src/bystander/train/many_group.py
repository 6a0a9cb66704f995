"""The trainings that are under way together, in the slots of one stack of adapters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from peft import PeftModel
from torch import Tensor

from bystander.lm.adapter_stack import AdapterStack, StackShape, shape_of_adapter
from bystander.lm.loaded import LoadedModel
from bystander.lm.model import fresh_adapter
from bystander.train.many_passes import Passes, make_passes
from bystander.train.many_plain import Work
from bystander.train.many_room import Room
from bystander.train.many_slots import Job, Training


@dataclass(frozen=True, slots=True)
class StepNumbers:
    """The numbers of one joint step, on their way from the device: losses and gradient norms, each [slots]."""

    works: list[tuple[Training, Work]]
    numbers: Readback


class Group:
    """The trainings that are under way, in the slots of one stack."""

    def __init__(self, loaded: LoadedModel, jobs: Sequence[Job], room_of: Callable[[StackShape], Room]) -> None:
        self._loaded = loaded
        self.running: list[Training] = []
        shape = self._shape(jobs[0])
        room = room_of(shape)
        self._stack = AdapterStack(shape, room.slots, loaded.device, room.dtype)
        self.passes: Passes = make_passes(loaded, self._stack, room)

    @property
    def has_room(self) -> bool:
        """Whether a slot is free."""
        return len(self.running) < self._stack.slots

    def start(self, job: Job) -> None:
        """Begin or continue a job in a free slot."""
        slot = min(set(range(self._stack.slots)) - {training.slot for training in self.running})
        if job.state is None:
            try:
                self._stack.read(slot, fresh_adapter(self._loaded, job.recipe.lora.peft(), job.adapter_seed))
            finally:
                self._loaded.remove_adapter()
        self.running.append(Training(job, slot, self._stack))
        self.running.sort(key=lambda training: training.slot)
        self._stack.refresh()

    @torch.no_grad()
    def free(self, training: Training) -> None:
        """Take a training out; nothing of it stays in its slot."""
        self.running.remove(training)
        self._stack.values[training.slot].zero_()
        self._stack.refresh()

    def step(self) -> StepNumbers:
        """One step of each, each clipped and moved by its own optimizer."""
        works = [(training, training.work()) for training in self.running]
        gradients = self._stack.gradients
        losses = self.passes.run([work for _, work in works])
        norms = torch.linalg.vector_norm(gradients, dim=1)
        limits = torch.ones(self._stack.slots)
        for training in self.running:
            limits[training.slot] = training.job.recipe.max_grad_norm
        # As torch.nn.utils.clip_grad_norm_, for each row of its own.
        gradients.mul_((limits.to(norms.device, non_blocking=True) / (norms + 1e-6)).clamp(max=1.0)[:, None])
        for training in self.running:
            training.advance()
        self._stack.refresh()
        return StepNumbers(works, Readback(torch.stack([losses, norms])))

    def put_on(self, training: Training) -> PeftModel:
        """A training's adapter on the model, in eval mode, as one of PEFT's."""
        self.passes.release()
        adapter = fresh_adapter(self._loaded, training.job.recipe.lora.peft(), training.job.adapter_seed)
        self._stack.write(training.slot, adapter)
        return adapter.eval()

    def find(self, name: str) -> Training | None:
        """The running training of that name."""
        return next((training for training in self.running if training.job.name == name), None)

    def _shape(self, job: Job) -> StackShape:
        try:
            return shape_of_adapter(fresh_adapter(self._loaded, job.recipe.lora.peft(), job.adapter_seed))
        finally:
            self._loaded.remove_adapter()


class Readback:
    """A tensor on its way to the host; on a GPU nothing waits until its values are asked for."""

    def __init__(self, tensor: Tensor) -> None:
        self._event = None
        self._host = tensor
        if tensor.is_cuda:
            self._host = torch.empty(tensor.shape, pin_memory=True)
            self._host.copy_(tensor, non_blocking=True)
            self._event = torch.cuda.Event()
            self._event.record()

    def values(self) -> list[list[float]]:
        """The tensor's numbers."""
        if self._event is not None:
            self._event.synchronize()
        return self._host.tolist()
