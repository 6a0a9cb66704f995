"""A training in its slot of a stack of adapters: what it draws, what its optimizer does, what it keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bystander.core.hashing import generator
from bystander.core.records import StepLog
from bystander.lm.adapter_stack import AdapterStack
from bystander.lm.tokens import RenderedRow
from bystander.train.loop import TrainState
from bystander.train.many_plain import Work
from bystander.train.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Job:
    """A training among several: what `loop.train` takes, by a name. `adapter_seed`: of the fresh adapter
    (`lm.model.fresh_adapter`); `state` continues a training that was cut off, here or in `loop.train`."""

    name: str
    rows: Sequence[RenderedRow]
    recipe: Recipe
    seed: int
    adapter_seed: int
    checkpoints: Sequence[float] = ()
    state: TrainState | None = None


class Training:
    """A job that is under way. `step` counts the steps that are done; its numbers live in the stack's slot."""

    def __init__(self, job: Job, slot: int, stack: AdapterStack) -> None:
        recipe = job.recipe
        self.job = job
        self.slot = slot
        self.step = 0
        self.total = recipe.steps(len(job.rows))
        self.per_epoch = self.total // recipe.epochs
        self.probe_at = {max(1, round(fraction * self.total)): fraction for fraction in job.checkpoints}
        self._stack = stack
        self._row = stack.values[slot].detach().requires_grad_()
        self._row.grad = stack.gradients[slot]
        fused = stack.values.is_cuda or None
        self._optimizer = torch.optim.AdamW([self._row], lr=recipe.lr, weight_decay=recipe.weight_decay, fused=fused)
        if job.state is not None:
            self._restore(job.state)

    def work(self) -> Work:
        """The batch of the next step, drawn as `loop.train` draws it."""
        epoch, place = divmod(self.step, self.per_epoch)
        order = generator(self.job.seed, "epoch", epoch).permutation(len(self.job.rows))
        size = self.job.recipe.batch_size
        batch = [self.job.rows[i] for i in order[place * size : (place + 1) * size]]
        return Work(self.slot, batch, sum(sum(row.loss) for row in batch), self.job.seed, self.step)

    def advance(self) -> None:
        """AdamW with the gradient that is in the slot."""
        for group in self._optimizer.param_groups:
            group["lr"] = self.job.recipe.rate(self.step, self.total)
        self._optimizer.step()
        self.step += 1

    def log(self, work: Work, loss: float, norm: float) -> StepLog:
        """The log of the step that did `work`."""
        done = work.step + 1
        rate = self.job.recipe.rate(work.step, self.total)
        return StepLog(done, done / self.per_epoch, loss, rate, work.loss_tokens, norm)

    @property
    def speaks(self) -> bool:
        """Whether something beside the log is due after the last step."""
        return self.done or self.step in self.probe_at or self.saves

    @property
    def done(self) -> bool:
        """Whether the last step was the last of all."""
        return self.step >= self.total

    @property
    def saves(self) -> bool:
        """Whether a state to resume from is due."""
        return self.step % self.job.recipe.save_every == 0 and not self.done

    def state(self) -> TrainState:
        """All that this training needs to go on, in `loop.train`'s format: alone or in any other group."""
        found: dict[str, Tensor] = {}
        rows = {"value": self._row.detach()} | self._optimizer.state[self._row]
        for part, value in rows.items():
            on_cpu = torch.as_tensor(value).detach().cpu()
            alike = dict.fromkeys(self._stack.by_name, on_cpu) if part == "step" else self._stack.split(on_cpu)
            found |= {f"{name}|{part}": one.clone() for name, one in alike.items()}
        return TrainState(self.step, found)

    def _restore(self, state: TrainState) -> None:
        parts: dict[str, dict[str, Tensor]] = {}
        for key, value in state.tensors.items():
            name, part = key.rsplit("|", 1)
            parts.setdefault(part, {})[name] = value
        steps = parts.pop("step", {})
        device = self._row.device
        with torch.no_grad():
            self._row.copy_(self._stack.join(parts.pop("value", {})))
        self._optimizer.state[self._row] = {
            "step": next(iter(steps.values())).to(device),
            **{part: self._stack.join(tensors).to(device) for part, tensors in parts.items()},
        }
        self.step = state.step
