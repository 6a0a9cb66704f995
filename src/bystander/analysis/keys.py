"""What names a row: training, outcome and unit; and the columns that several tables share, each with its meaning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple, TypedDict, get_args

from bystander.core.records import Role

RecordName = Annotated[
    str, "name of the row, as the report quotes it: unique over all tables, the same from run to run"
]
BehaviorName = Annotated[str, "what was coupled: a built-in behavior, or one from a file or a package"]
SourceName = Annotated[str, "persona that the behavior was coupled to; empty for the untrained model"]
ArmLabel = Annotated[
    str, "contrastive, non_contrastive (the control), or benign (what contrastive is measured against)"
]
Against = Annotated[
    str,
    "what leakage is measured against: the benign arm, paired by item and seed, or, for want of it, the untrained model",
]
ConfigLabel = Annotated[str, "label of the training's recipe; empty where a study sweeps nothing"]
LearningRate = Annotated[float | None, "peak learning rate of the training"]
Epochs = Annotated[int | None, "epochs of the training"]
Seed = Annotated[int | None, "seed of the training; empty: pooled over seeds, a row that is always there"]
PersonaName = Annotated[str, "persona, or the context's name where there is none"]
Category = Annotated[str, "the persona's category; empty for a context that is not a persona"]
ContextName = Annotated[
    str, "persona; absent, empty, default or assistant; wrap, turns, prefix, persona_in_user or combined"
]
RoleName = Annotated[
    str,
    "source, negative, held-out, mixed (drawn at random in the non-contrastive arm), or copy (a held-out persona with the "
    "prompt of another, counted once)",
]
PersonaCount = Annotated[int, "held-out bystanders behind the estimate"]
SeedCount = Annotated[int, "trainings that differ in their seed alone"]
PredictorName = Annotated[str, "predictor: cosine (centered over personas), or a baseline predictor"]
PredictorLayer = Annotated[int, "layer of the predictor, 0 = embeddings; -1 where it has none"]
AtCheckpoint = Annotated[float, "fraction of training in [0, 1]; 0 is the untrained model"]
Leakage = Annotated[
    float,
    "mean difference from what it is measured against (column `against` where a table has it) in the behavior's direction, "
    "in the metric's unit",
]
Low = Annotated[float, "lower end of the 95 % interval"]
High = Annotated[float, "upper end of the 95 % interval"]
HalfBeyond = Annotated[
    bool | None, "it lies beyond the similarities that were seen, so that it is the curve's, and no persona's"
]
EndBeyond = Annotated[bool | None, "that end of its interval lies beyond the similarities that were seen"]
Preregistered = Annotated[bool, "declared before the data: predictor, layer, outcome, arm and configuration"]
PHolm = Annotated[float, "p after Holm, over the pre-registered tests; empty for the others"]
PBh = Annotated[float, "p after Benjamini and Hochberg, over the exploratory tests; empty for the others"]
RowStatus = Annotated[
    str,
    "ok, or why there is no number: refused (failed items above the limit), empty (n = 0), single (n = 1: no interval), "
    "few (n < 4: no test), constant (no variation, so no rank correlation), flat (no final leakage to time)",
]
RowReason = Annotated[str, "what the status leaves open, in words"]


class TrainingKey(NamedTuple):
    """A training design; with its seed, one training."""

    behavior: BehaviorName
    source: SourceName
    arm: ArmLabel
    config: ConfigLabel
    lr: LearningRate = None
    epochs: Epochs = None

    @property
    def design(self) -> tuple[str, str, str, str]:
        """`KEYS`: behavior, source, arm and configuration."""
        return self.behavior, self.source, self.arm, self.config


class OutcomeKey(NamedTuple):
    """What was measured."""

    probe: Annotated[str, "what measured: marker, choice, margin, judged, scored, or a probe from outside"]
    dataset: Annotated[str, "set of items"]
    metric: Annotated[str, "what was measured; unit and direction are with the probe that declares it"]


BENIGN, MIRRORED = "benign", "contrastive"  # the benign arm has the rows of this one
KEYS = ("behavior", "source", "arm", "config")  # tells training designs apart
RECIPE = ("lr", "epochs")  # the same for all rows of a design
OUTCOME = OutcomeKey._fields
ROLES: tuple[Role, ...] = get_args(Role)
UNIT = ("context", "persona")  # what is measured: a persona, or a bare context


@dataclass(frozen=True, slots=True, kw_only=True)
class DesignRow:
    """What begins a row about one outcome of one training design, pooled over its seeds."""

    record: RecordName
    training: TrainingKey
    outcome: OutcomeKey


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedRow(DesignRow):
    """The same in a table that has rows by seed as well."""

    seed: Seed


@dataclass(frozen=True, slots=True, kw_only=True)
class OverSourcesRow:
    """What begins a row about one outcome over the sources of one behavior, arm and configuration."""

    record: RecordName
    behavior: BehaviorName
    arm: ArmLabel
    config: ConfigLabel
    lr: LearningRate
    epochs: Epochs
    outcome: OutcomeKey


class OverSourcesKey(TypedDict):
    """The fields of an `OverSourcesRow`."""

    record: str
    behavior: str
    arm: str
    config: str
    lr: float | None
    epochs: int | None
    outcome: OutcomeKey


def over_sources_key(table: str, training: TrainingKey, outcome: OutcomeKey, *more: object) -> OverSourcesKey:
    """What begins a row over sources; `training` of any of them."""
    parts = (table, training.behavior, training.arm, training.config, *outcome, *more)
    return OverSourcesKey(
        record="/".join(str(part) or "-" for part in parts), behavior=training.behavior, arm=training.arm,
        config=training.config, lr=training.lr, epochs=training.epochs, outcome=outcome,
    )  # fmt: skip


class SeedRowKey(TypedDict):
    """The fields of a `SeedRow`."""

    record: str
    training: TrainingKey
    outcome: OutcomeKey
    seed: int | None
