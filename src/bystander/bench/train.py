"""Training: rows per second of plain loops and of ours, and their losses on the same rows and weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from bystander.bench.comparison import SpeedComparison, timed
from bystander.bench.random_models import random_adapter
from bystander.core.errors import ModelError
from bystander.core.progress import Bar
from bystander.lm.model import LoadedModel, fresh_adapter
from bystander.lm.tokens import RenderedRow
from bystander.train.loop import summed_losses
from bystander.train.recipe import Lora, Recipe

BATCH = 16  # the plan's recipe
COMPLETION = 20  # tokens in the loss of a row, as a marker's or a choice's answer has
WARM_UP = 2  # steps of each way that are not timed: compiling, and the optimizer's state
# Largest difference of the mean loss in nats per token: float32 as tests/lm/test_packed.py; bfloat16 from the shape of
# Qwen2.5-7B with random weights, where two plain batches of the same rows differ by 0.007.
LOSS_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}


@dataclass(frozen=True, slots=True)
class PlainLoop:
    """A loop as a default trainer runs it: rows padded to the longest, logits at every place."""

    name: str
    micro_rows: int
    checkpointing: bool


PLAIN_LOOPS = (
    PlainLoop("4 rows x 4 accumulated, gradient checkpointing, all logits", 4, True),
    PlainLoop("16 padded rows at once, all logits", 16, False),
)


def bench_train(
    loaded: LoadedModel, bar: Bar, *, tokens: int = 140, spread: int = 30, turns: int = 8
) -> list[SpeedComparison]:
    """LoRA of the plan's recipe (rank 32 on seven maps) on rows of random tokens: `tokens` on average, their standard
    deviation `spread`, the last 20 in the loss. Raises ModelError where losses on the same weights differ."""
    batches = [random_rows(loaded.vocabulary, tokens, spread, turn) for turn in range(turns + WARM_UP)]
    difference = _apart(loaded, batches[:2])
    if difference > LOSS_TOLERANCE[loaded.dtype]:
        raise ModelError(
            f"bench train: the losses of the two ways differ by {difference:.2g} nats per token, more than "
            f"{LOSS_TOLERANCE[loaded.dtype]:g}; training is not to be trusted on this device."
        )
    bar.start("train", (1 + len(PLAIN_LOOPS)) * len(batches))
    ours = _rate(loaded, bar, batches, lambda batch: summed_losses(loaded, batch, None))
    results: list[SpeedComparison] = []
    for way in PLAIN_LOOPS:
        rate = _rate(loaded, bar, batches, lambda batch, way=way: _plain_losses(loaded, batch, way), way.checkpointing)
        results.append(
            SpeedComparison(
                f"train, {tokens} +- {spread} tokens", "rows", way.name, rate, turns, ours, turns, ours / rate, difference,
                0, 2,
            )
        )  # fmt: skip
    return results


def random_rows(vocabulary: int, tokens: int, spread: int, turn: int) -> list[RenderedRow]:
    """A batch of rows of random tokens, drawn from the seed `turn`: `tokens` on average, the last `COMPLETION` in the
    loss."""
    g = np.random.default_rng(turn)
    lengths = np.clip(g.normal(tokens, spread, BATCH), COMPLETION + 8, 2 * tokens).astype(int)
    return [
        RenderedRow(
            g.integers(0, vocabulary, n).tolist(), [place >= n - COMPLETION for place in range(n)], n - COMPLETION,
            COMPLETION, 0,
        )
        for n in lengths.tolist()
    ]  # fmt: skip


def _apart(loaded: LoadedModel, batches: Sequence[Sequence[RenderedRow]]) -> float:
    """Largest difference of a batch's mean loss between ours and a plain forward pass, the adapter on with B not zero
    and without dropout."""
    random_adapter(loaded, Lora(dropout=0.0), 0.002)
    found = 0.0
    try:
        with torch.no_grad():
            for batch in batches:
                ours = sum(float(part) for part in summed_losses(loaded, batch, None))
                plain = sum(float(part) for part in _plain_losses(loaded, batch, PLAIN_LOOPS[1]))
                found = max(found, abs(ours - plain) / (BATCH * COMPLETION))
    finally:
        loaded.remove_adapter()
    return found


def _rate(
    loaded: LoadedModel, bar: Bar, batches: Sequence[Sequence[RenderedRow]],
    losses: Callable[[Sequence[RenderedRow]], Iterable[Tensor]], checkpointing: bool = False,
) -> float:  # fmt: skip
    """Rows per second, the median over the timed steps; a step is forward, backward, clipping and AdamW."""
    recipe = Recipe()
    adapter = fresh_adapter(loaded, recipe.lora.peft(), 0)
    trained = [parameter for parameter in adapter.parameters() if parameter.requires_grad]
    on_gpu = loaded.device.type == "cuda"
    optimizer = torch.optim.AdamW(trained, lr=recipe.lr, fused=on_gpu or None)
    times: list[float] = []

    def step(batch: Sequence[RenderedRow]) -> None:
        for part in losses(batch):
            (part / (BATCH * COMPLETION)).backward()
        torch.nn.utils.clip_grad_norm_(trained, recipe.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    try:
        if checkpointing:
            _switch_checkpointing(loaded, on=True)
        loaded.model.train()
        for turn, batch in enumerate(batches):
            torch.manual_seed(turn)
            times.append(timed(loaded, lambda batch=batch: step(batch))[1])
            bar.advance()
    finally:
        if checkpointing:
            _switch_checkpointing(loaded, on=False)
        loaded.model.eval()
        loaded.remove_adapter()
    return BATCH / median(times[WARM_UP:])


def _switch_checkpointing(loaded: LoadedModel, *, on: bool) -> None:
    """Recomputing activations in the backward pass; transformers renamed it in 5.23."""
    causal = cast(Any, loaded.causal)
    known = "activation" if hasattr(causal, "activation_checkpointing_enable") else "gradient"
    if on:
        causal.enable_input_require_grads()
        getattr(causal, f"{known}_checkpointing_enable")({"use_reentrant": False})
    else:
        getattr(causal, f"{known}_checkpointing_disable")()
        causal.disable_input_require_grads()


def _plain_losses(loaded: LoadedModel, batch: Sequence[RenderedRow], way: PlainLoop) -> list[Tensor]:
    """Summed losses as `model(input_ids, labels=...)` gives them, a micro-batch at a time."""
    found: list[Tensor] = []
    for start in range(0, len(batch), way.micro_rows):
        rows = batch[start : start + way.micro_rows]
        longest = max(len(row.ids) for row in rows)
        ids = torch.zeros((len(rows), longest), dtype=torch.long)
        labels = torch.full((len(rows), longest), -100)
        for i, row in enumerate(rows):
            ids[i, : len(row.ids)] = torch.tensor(row.ids)
            labels[i, : len(row.ids)] = torch.where(torch.tensor(row.loss), torch.tensor(row.ids), -100)
        out = loaded.causal(
            input_ids=ids.to(loaded.device), labels=labels.to(loaded.device), num_items_in_batch=1, use_cache=False
        )
        found.append(out.loss)
    return found
