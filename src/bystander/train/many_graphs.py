"""Packed passes captured in CUDA graphs: a pass is then one launch, which a small model's many short kernels wait for.

A graph belongs to a shape of a pass, so passes are filled up to coarse sizes, of which a training meets few. Nothing of
a pass is decided on the host or drawn from a generator: sequences, groups, targets and dropout's keys are all tensors.
All graphs share one pool of memory, since they run one after another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bystander.lm.adapter_stack import AdapterStack
from bystander.lm.loaded import LoadedModel
from bystander.lm.stacked import StackedForward
from bystander.train.many_packed import Batch, PackedPasses, Sizes

SIZES = Sizes(tokens=1024, places=256, sequences=64, longest=256)
WARM_UP = 2  # passes before the first capture: compiling, libraries' workspaces, their choice of kernels


@dataclass(frozen=True, slots=True)
class _Captured:
    """A pass whose inputs are the tensors of `batch`; `replay` runs it; each slot's loss is then in `losses` [slots]."""

    batch: Batch
    losses: Tensor
    replay: Callable[[], None]


class GraphedPasses(PackedPasses):
    """The gradients of one step, each pass a replay of the graph of its shape."""

    def __init__(self, loaded: LoadedModel, stack: AdapterStack, forward: StackedForward, pass_tokens: int) -> None:
        super().__init__(loaded, stack, forward, pass_tokens, sizes=SIZES)
        self.name = "packed, grouped products, CUDA graphs"
        self._captured: dict[tuple[int, ...], _Captured] = {}
        self._pool: Any = None

    def release(self) -> None:
        """Let go of all graphs, whose memory nobody else can use meanwhile; they are captured anew."""
        self._captured.clear()
        self._pool = None
        super().release()

    def _compute(self, batches: Sequence[Batch]) -> Tensor:
        for batch in batches:
            if batch.sizes not in self._captured:
                self._captured[batch.sizes] = self._capture(batch)
        self._stack.gradients.zero_()  # capturing runs passes that do not count
        losses = torch.zeros(self._stack.slots, device=self._loaded.device)
        for batch in batches:
            captured = self._captured[batch.sizes]
            for mine, given in zip(captured.batch.tensors, batch.tensors, strict=True):
                mine.copy_(given)
            captured.replay()
            losses += captured.losses
        return losses

    def _capture(self, batch: Batch) -> _Captured:
        own = batch.clone()
        if self._pool is None:
            self._warm_up(own)
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        # Relaxed: a later shape is captured without a warm-up of its own, so that kernels may be loaded meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="relaxed"):
            losses = self.differentiate(own)
        return _Captured(own, losses, graph.replay)

    def _warm_up(self, batch: Batch) -> None:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self.differentiate(batch)
        torch.cuda.current_stream().wait_stream(side)
