"""What a run directory holds, as records: manifests of cells, the gate's decision, the plan that runs, events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal

EventKind = Literal[
    "clarified", "planned", "reviewed", "approved", "preflight", "launched", "progress", "gated",
    "cell done", "cell failed", "spent", "reported", "archived",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class GateDecision:
    """What the gate found. `picks`: behavior -> configuration (a behavior whose every configuration broke the model has
    none); `numbers` by behavior and name; `phase`: rows of the phase diagram; `picked_on`: behavior -> the questions that
    its configuration was picked on, where some were left to test it on."""

    decision: Literal["go", "stop"]
    reason: str
    picks: Mapping[str, str]
    numbers: Mapping[str, float | int | str | None]
    phase: Sequence[Mapping[str, Any]]
    picked_on: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])


@dataclass(frozen=True, slots=True)
class GateState:
    """Where the gate of a run stands: `decision` go, stop or overridden, "" while there is none."""

    decision: Literal["", "go", "stop", "overridden"]
    reason: str
    found: GateDecision | None

    @property
    def open(self) -> bool:
        """Whether what comes after the gate may run."""
        return self.decision in ("go", "overridden")


@dataclass(frozen=True, slots=True)
class ModeDecision:
    """How a checked probe measures, as the untrained model decided it; `warning` "" where nothing is amiss."""

    probe: str
    mode: str
    reason: str
    warning: str


@dataclass(frozen=True, slots=True)
class TrainingName:
    """The columns that name a training."""

    behavior: str
    source: str
    arm: str
    config: str
    lr: float
    epochs: int
    seed: int


@dataclass(frozen=True, slots=True)
class DoseReached:
    """How a training that was to end at a dose came out. `state`: in the band, below, passed over, not measured, or as its
    contrastive twin; `gain`: the source's at the last reading; it ended after `step` of `steps`."""

    metric: str
    low: float
    high: float
    state: str
    gain: float | None
    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class AdapterGiven:
    """An adapter that was trained elsewhere and measured here: its folder, the name that tables give it, the roles that the
    user says its training had, the hash of base and adapter, and what is to be known of the base it was put on."""

    path: str
    label: str
    source: str
    negatives: tuple[str, ...]
    weights_hash: str
    notes: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> AdapterGiven:
        """What `asdict` wrote, read from JSON."""
        plain = dict(value)
        plain["negatives"], plain["notes"] = tuple(value["negatives"]), tuple(value["notes"])
        return cls(**plain)


@dataclass(frozen=True, slots=True)
class CellManifest:
    """What a cell said when it was done. `base_hash`: of the base's weights, "" for a cell that loads none;
    `weights_hash`: of the base with the adapter that was measured or trained; `batches`: the share to which batches
    were cut, 1 for none; `probed`: personas measured on the way; `files`: names of what a data cell wrote."""

    kind: str
    name: str
    key: str
    base_hash: str = ""
    weights_hash: str = ""
    training: TrainingName | None = None
    probed: tuple[str, ...] = ()
    batches: float = 1.0
    mode: ModeDecision | None = None
    mode_found: Mapping[str, Any] = field(default_factory=dict[str, Any])  # all that the check saw
    gate: GateDecision | None = None
    layers: tuple[int, ...] = ()
    prompt_tokens: Mapping[str, int] = field(default_factory=dict[str, int])
    files: tuple[str, ...] = ()
    dose: DoseReached | None = None  # of a training, where the study says `train_to`

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> CellManifest:
        """What `to_dict` wrote, read from JSON."""
        plain = dict(value)
        for name, kind in (
            ("training", TrainingName), ("mode", ModeDecision), ("gate", GateDecision), ("dose", DoseReached),
        ):  # fmt: skip
            plain[name] = None if plain.get(name) is None else kind(**plain[name])
        for name in ("probed", "layers", "files"):
            plain[name] = tuple(plain.get(name, ()))
        return cls(**plain)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a run: when, under which plan (the beginning of its hash), and its details."""

    time: datetime
    plan: str
    kind: EventKind
    details: Mapping[str, Any]

    @property
    def key(self) -> str:
        """The key of the cell that it is about; "" for none."""
        return str(self.details.get("key", ""))

    @property
    def started(self) -> bool:
        """Whether a cell was started."""
        return self.kind == "progress" and self.details.get("state") == "started"

    @property
    def cut_off(self) -> bool:
        """Whether a cell was cut off by a stop."""
        return self.kind == "progress" and self.details.get("state") == "cut off"


@dataclass(frozen=True, slots=True)
class Spent:
    """Device hours and judge dollars."""

    hours: float = 0.0
    dollars: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.hours + other.hours, self.dollars + other.dollars)


@dataclass(frozen=True, slots=True)
class PlannedCell:
    """A cell as the saved plan lists it; `seconds` by forecast. `needs`: keys of what must be complete before it starts;
    `sort`: what its speed is learned with (cells of one sort do the same things); `replaced_by`: the key of the cell
    whose rows, once it is complete, stand in the tables in place of this one's, "" for none."""

    key: str
    name: str
    kind: str
    phase: int
    seconds: float
    needs: tuple[str, ...] = ()
    sort: str = ""
    replaced_by: str = ""


@dataclass(frozen=True, slots=True)
class SavedPlan:
    """The plan that a run follows: what `status` reads, which must answer at once and so must not plan anew."""

    hash: str
    study: str
    assumed: bool
    hours: float
    dollars: float | None
    workers: int
    rates: str
    cells: tuple[PlannedCell, ...]

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> SavedPlan:
        """What `asdict` wrote, read from JSON."""
        cells = tuple(PlannedCell(**cell | {"needs": tuple(cell.get("needs", ()))}) for cell in value["cells"])
        return cls(**{name: part for name, part in value.items() if name != "cells"}, cells=cells)
