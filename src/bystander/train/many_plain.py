"""One step of several trainings on the model's own forward pass, their adapters hooked onto its maps.

What each training computes is what it computes alone: its micro-batches are those of `loop.micro_batches`, and its
dropout comes from a generator of its own that stands where torch's would. Micro-batches of several trainings stand
under each other in one pass as far as `pass_tokens` goes; only their padding, which no token sees, differs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bystander.core.hashing import seed_for
from bystander.lm.adapter_stack import AdapterStack
from bystander.lm.loaded import LoadedModel
from bystander.lm.tokens import RenderedRow
from bystander.train.loop import micro_batches


@dataclass(frozen=True, slots=True)
class Work:
    """One optimizer step of one training: its adapter's slot, the batch, the tokens in its loss, its seed and step."""

    slot: int
    rows: Sequence[RenderedRow]
    loss_tokens: int
    seed: int
    step: int

    @property
    def weight(self) -> float:
        """Of a loss token in the batch's mean."""
        return 1 / max(1, self.loss_tokens)


@dataclass(frozen=True, slots=True)
class _Part:
    """A micro-batch of one training, and its lines in the joint batch."""

    work: Work
    rows: Sequence[RenderedRow]
    draws: torch.Generator

    @property
    def length(self) -> int:
        return max(len(row.ids) for row in self.rows)


class PlainPasses:
    """The gradients of one step, by the model's own forward pass."""

    def __init__(self, loaded: LoadedModel, stack: AdapterStack, micro_tokens: int, pass_tokens: int) -> None:
        """`micro_tokens` as in `loop.train`; `pass_tokens`: padded tokens of a joint pass."""
        self.name = "plain"
        self._loaded = loaded
        self._stack = stack
        self._micro_tokens = micro_tokens
        self._pass_tokens = pass_tokens

    def run(self, works: Sequence[Work]) -> Tensor:
        """Mean loss of each slot's batch [slots], 0 where there is none; the stack then holds the gradients."""
        self._stack.gradients.zero_()
        losses = torch.zeros(self._stack.slots, device=self._loaded.device)
        for parts in self._joint(works):
            slots = sorted({part.work.slot for part in parts})
            leaves = {slot: self._leaves(slot) for slot in slots}
            with self._hooked(parts, leaves):
                summed = self._summed_losses(parts)
            means = [loss * part.work.weight for loss, part in zip(summed, parts, strict=True)]
            flat = [leaf for slot in slots for leaf in leaves[slot].values()]
            places = [place for slot in slots for place in self._stack.row(self._stack.gradients, slot).values()]
            for place, gradient in zip(places, torch.autograd.grad(torch.stack(means).sum(), flat), strict=True):
                place.add_(gradient)
            for part, mean in zip(parts, means, strict=True):
                losses[part.work.slot] += mean.detach()
        return losses

    def release(self) -> None:
        """Nothing is held between steps."""

    def _joint(self, works: Sequence[Work]) -> list[list[_Part]]:
        """The trainings' micro-batches, each training's in its own order, as passes that stay within the budget."""
        waiting: list[deque[_Part]] = []
        for work in works:
            draws = torch.Generator(self._loaded.device).manual_seed(seed_for(work.seed, "step", work.step))
            waiting.append(deque(_Part(work, rows, draws) for rows in micro_batches(work.rows, self._micro_tokens)))
        passes: list[list[_Part]] = []
        while any(waiting):
            parts: list[_Part] = []
            for queue in waiting:
                if queue and self._fits([*parts, queue[0]]):
                    parts.append(queue.popleft())
            passes.append(parts)
        return passes

    def _fits(self, parts: Sequence[_Part]) -> bool:
        tokens = sum(len(part.rows) for part in parts) * max(part.length for part in parts)
        return len(parts) == 1 or tokens <= self._pass_tokens

    def _leaves(self, slot: int) -> dict[str, Tensor]:
        """A slot's parameters by PEFT's names, to be differentiated by."""
        views = self._stack.row(self._stack.values, slot)
        return {name: view.detach().requires_grad_() for name, view in views.items()}

    @contextmanager
    def _hooked(self, parts: Sequence[_Part], leaves: dict[int, dict[str, Tensor]]) -> Generator[None]:
        """Within the block the adapters are on the base's maps, and the model is in training mode."""
        causal = self._loaded.causal
        a, b = ([place for place in self._stack.shape.places if place.part == part] for part in ("A", "B"))
        handles = [
            causal.get_submodule(down.module).register_forward_hook(self._branch(parts, leaves, down.name, up.name))
            for down, up in zip(a, b, strict=True)
        ]
        causal.train()
        try:
            yield
        finally:
            causal.eval()
            for handle in handles:
                handle.remove()

    def _branch(
        self, parts: Sequence[_Part], leaves: dict[int, dict[str, Tensor]], a: str, b: str
    ) -> Callable[[torch.nn.Module, tuple[Tensor], Tensor], Tensor]:
        scale, p = self._stack.shape.scale, self._stack.shape.dropout

        def add(_module: torch.nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            found: list[Tensor] = []
            first = 0
            for part in parts:
                x = inputs[0][first : first + len(part.rows), : part.length].to(self._stack.values.dtype)
                first += len(part.rows)
                own = leaves[part.work.slot]
                branch = F.linear(F.linear(_dropout(x, p, part.draws), own[a]), own[b]) * scale
                short = output.shape[1] - part.length
                found.append(F.pad(branch, (0, 0, 0, short)) if short else branch)
            return (output + (torch.cat(found) if len(found) > 1 else found[0])).to(output.dtype)

        return add

    def _summed_losses(self, parts: Sequence[_Part]) -> list[Tensor]:
        """Negative log-likelihood in nats of each part, summed over its loss tokens, as `loop.summed_loss`."""
        rows = [row for part in parts for row in part.rows]
        longest = max(part.length for part in parts)
        ids = torch.zeros((len(rows), longest), dtype=torch.long)
        loss = torch.zeros((len(rows), longest), dtype=torch.bool)
        for i, row in enumerate(rows):
            ids[i, : len(row.ids)] = torch.tensor(row.ids)
            loss[i, : len(row.ids)] = torch.tensor(row.loss)
        counts = [int(part.sum()) for part in loss[:, 1:].split([len(part.rows) for part in parts])]
        ids, loss = ids.to(self._loaded.device), loss.to(self._loaded.device)
        hidden = self._loaded.body(input_ids=ids)[:, :-1]
        logits = self._loaded.head(hidden[loss[:, 1:]]).float()
        each: Any = F.cross_entropy(logits, ids[:, 1:][loss[:, 1:]], reduction="none").split(counts)
        return [one.sum() for one in each]


def _dropout(x: Tensor, p: float, draws: torch.Generator) -> Tensor:
    """torch's own dropout on a CPU to the last bit, drawn from a generator that is not the global one."""
    if not p:
        return x
    noise = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    return x * noise.bernoulli_(1 - p, generator=draws).div_(1 - p)
