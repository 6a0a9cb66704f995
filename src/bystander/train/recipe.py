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
    alpha: int = Field(default=64, ge=1)  # the plan's recipe
    dropout: float = Field(default=0.05, ge=0, lt=1)  # the plan's recipe
    rslora: bool = True
    target_modules: list[str] = ALL_LINEAR

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
    lr: float = Field(default=1e-5, gt=0)
    epochs: int = Field(default=3, ge=1)
    batch_size: int = Field(default=16, ge=1)
    warmup: float = Field(default=0.05, ge=0, lt=1)  # share of all steps, the plan's recipe
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)  # the default of the ecosystem's trainers
    loss: Literal["completion", "marker"] = "completion"
    end_of_turn: Literal["in_loss", "masked"] = "in_loss"
    save_every: int = Field(default=50, ge=1)  # steps between states that a killed training resumes from

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
