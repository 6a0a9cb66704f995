"""The recipe of a training: everything about it that is a number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from bystander.core.settings import Settings

ALL_LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


class Lora(Settings):
    """LoRA (Hu et al. 2021, arXiv 2106.09685), rank-stabilized (Kalajdzievski 2023, arXiv 2312.03732, eq. 5):
    the update is `alpha / sqrt(rank) * B A x`."""

    rank: int = Field(default=32, ge=1)  # the plan's recipe
    """[dimensions] Of the update. 32 is the plan's."""
    alpha: int = Field(default=64, ge=1)  # the plan's recipe
    """Scale: the update is multiplied by alpha / sqrt(rank) with rsLoRA, alpha / rank without."""
    dropout: float = Field(default=0.05, ge=0, lt=1)  # the plan's recipe
    """[probability] Of the adapter's inputs during training."""
    rslora: bool = True
    """Rank-stabilized scale. At rank 32 it is 5.7 times that of plain LoRA: a server must honor `use_rslora`."""
    target_modules: list[str] = ALL_LINEAR
    """Linear layers that get an adapter; all seven of a block are the plan's."""

    def peft(self) -> dict[str, object]:
        """The same settings under the names of `peft.LoraConfig`."""
        return {
            "r": self.rank,
            "lora_alpha": self.alpha,
            "lora_dropout": self.dropout,
            "use_rslora": self.rslora,
            "target_modules": list(self.target_modules),
        }


class Recipe(Settings):
    """How a training goes. `loss`: the whole completion, or the marker's tokens alone. `end_of_turn`: whether the
    template's end-of-turn tokens are in the loss. `lr` is the peak learning rate."""

    lora: Lora = Lora()
    """The adapter."""
    lr: float = Field(default=1e-5, gt=0)
    """Peak learning rate of AdamW. 1e-5 suits 7B models with 800 rows; small models take 2e-4 to 1e-3."""
    epochs: int = Field(default=3, ge=1)
    """[passes] Over the rows."""
    batch_size: int = Field(default=16, ge=1)
    """[rows a step] Memory does not depend on it; the number of steps does."""
    warmup: float = Field(default=0.05, ge=0, lt=1)  # share of all steps, the plan's recipe
    """[fraction of steps] Of linear warm-up, before a half cosine to 0."""
    weight_decay: float = Field(default=0.0, ge=0)
    """AdamW's; 0 leaves the adapter to the data."""
    max_grad_norm: float = Field(default=1.0, gt=0)  # the default of the ecosystem's trainers
    """[L2 norm] Above it gradients are scaled down."""
    loss: Literal["completion", "marker"] = "completion"
    """On which tokens: the whole completion, or the marker alone."""
    end_of_turn: Literal["in_loss", "masked"] = "in_loss"
    """Whether the template's end-of-turn tokens are learned; it changed published rates from 1 % to 23 %."""
    save_every: int = Field(default=50, ge=1)  # steps between states that a killed training resumes from
    """[steps] Between states that a killed training resumes from."""

    def steps(self, rows: int) -> int:
        """Optimizer steps of a training on `rows` rows; the last batch of an epoch may be short."""
        return self.epochs * math.ceil(rows / self.batch_size)

    def rate(self, step: int, total: int) -> float:
        """Learning rate of step `step` (0-based) of `total`: linear warm-up, then a half cosine to 0."""
        warm = math.ceil(self.warmup * total)
        if step < warm:
            return self.lr * step / max(1, warm)
        return self.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))


def checkpoint_steps(fractions: Sequence[float], total: int) -> dict[int, float]:
    """Step -> fraction of training, for each checkpoint that a training of `total` steps has, in order of step.

    Fractions in (0, 1] that fall on one step are one checkpoint, called by the largest of them: a training of two steps
    that is asked for quarters has 0.5 and 1.0.
    """
    at: dict[int, float] = {}
    for fraction in sorted(fractions):
        at[max(1, round(fraction * total))] = fraction
    return at


def inner_checkpoints(fractions: Sequence[float], total: int) -> list[float]:
    """The checkpoints of `checkpoint_steps` before the end, which is measured by itself."""
    return [fraction for step, fraction in checkpoint_steps(fractions, total).items() if step < total]
