"""One unit of work, and the training that it belongs to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from bystander.design.arms import ArmName
from bystander.study.plan.groups import Group
from bystander.study.store.cell_dir import cell_folder

Kind = Literal["answers", "data", "geometry", "mode check", "evaluate", "train", "gate"]


@dataclass(frozen=True, slots=True)
class Training:
    """What names one training: the columns that its measurements carry."""

    behavior: str
    source: str
    arm: ArmName
    lr: float
    epochs: int
    seed: int

    @property
    def config(self) -> str:
        """Readable name of its configuration."""
        return config_label(self.lr, self.epochs)

    @property
    def label(self) -> str:
        """Readable name, also of its folder."""
        return f"{self.behavior}-{self.source}-{self.arm}-lr{self.lr:g}-epochs{self.epochs}-s{self.seed}"

    @property
    def twin(self) -> Training | None:
        """Of a benign training the contrastive one that is measured against it; None for the others."""
        return replace(self, arm="contrastive") if self.arm == "benign" else None


def config_label(lr: float, epochs: int) -> str:
    """Readable name of what a sweep varies; nothing reads it back."""
    return f"lr={lr:g},epochs={epochs}"


@dataclass(frozen=True, slots=True)
class Cell:
    """One unit of work. `needs` are keys of cells that must be complete before it can start."""

    kind: Kind
    name: str
    key: str
    needs: tuple[str, ...] = ()
    training: Training | None = None  # None: the untrained model
    probe: str | None = None  # of a mode check and an evaluation
    phase: int = 0
    group: Group = "all"  # of an evaluation
    behavior: str = ""  # of answers that a model writes

    @property
    def folder(self) -> str:
        """Its folder in a run directory."""
        return cell_folder(self.name, self.key)

    @property
    def sort(self) -> str:
        """What does the same things and so runs at the same speed: its kind, its probe, on which model."""
        if self.kind == "train":
            return "train" if self.phase > 1 else "sweep"
        where = "" if self.kind != "evaluate" else " after" if self.training else " base"
        return f"{self.kind}{where}{' ' + self.probe if self.probe else ''}"
