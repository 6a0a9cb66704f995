"""What the report shows beside the analysis: settings, audit, personas, completions, provenance and cost.

`results` fills a `ReportInput` from the run directory; everything has a default, so that somebody's own table can be
reported with the analysis alone. Each part hands out the record ids that the page puts on its numbers
(`inputs/cost/GPU-hours`), beside those of the analysis tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import polars as pl

from bystander.analysis.leakage_forecast import ForecastScore
from bystander.core.columns import CellValue, schema_of
from bystander.core.records import Completion, Finding, PersonaFacts, Similarity, StepLog

BoardState = Literal["planned", "approved", "running", "gated", "done", "failed", "archived"]
BOARD_STATES: tuple[BoardState, ...] = ("planned", "approved", "running", "gated", "done", "failed", "archived")


@dataclass(frozen=True, slots=True)
class ReadCompletion:
    """A sampled answer and whether it shows the behavior. `leaked` None: the probe does not say.

    `score` is what the probe gave the sample (a judge's 0-100, a marker's 0 or 1), in the metric's unit.
    """

    completion: Completion
    behavior: str = ""
    source: str = ""
    arm: str = ""
    role: str = ""
    checkpoint: float = 1.0
    leaked: bool | None = None
    score: float | None = None
    note: str = ""  # why there is no score, or what the judge said
    question: str = ""  # the user turn that was answered, where known
    config: str = ""
    seed: int | None = None

    @property
    def record(self) -> str:
        """Its record id; an answer's own id is unique within one training and checkpoint only."""
        seed = "" if self.seed is None else f"seed{self.seed}"
        training = "/".join((self.behavior, self.source, self.arm, self.config, seed, f"{self.checkpoint:g}"))
        return f"inputs/completion/{training}/{self.completion.id}"


@dataclass(frozen=True, slots=True)
class TrainingCurve:
    """The steps of one training. `label` names it for a reader ("villain, marker, contrastive, seed 0")."""

    label: str
    steps: Sequence[StepLog]
    source: str = ""
    behavior: str = ""
    arm: str = ""
    config: str = ""
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class TrainingRows:
    """What one design was trained on: how many rows, how often, and the personas trained not to show the behavior. `config`
    is the training's name in the tables."""

    behavior: str
    source: str
    arm: str
    config: str
    rows: int
    epochs: int
    negatives: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()

    @property
    def record(self) -> str:
        """Its record id."""
        return "/".join(("inputs/trained", self.behavior, self.source, self.arm, self.config))


@dataclass(frozen=True, slots=True)
class CostLine:
    """One line of the bill: forecast by the plan and what was spent, in `unit` (None: not forecast, not known)."""

    name: str  # "GPU-hours", "tokens trained", "judge"
    unit: str
    forecast: float | None = None
    spent: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class ContextRendering:
    """How one context is rendered in the prompt of the model: the rendered text around the marked place of the user turn."""

    kind: str
    name: str
    system: str | None
    text: str
    context_hash: str = ""


@dataclass(frozen=True, slots=True)
class Declaration:
    """One thing that was fixed before the first training ("predictor", "exclusions") and where it was fixed."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class GateResult:
    """What the gate decided: one line per criterion it looked at."""

    decision: str  # "go", "stop", "overridden"
    reason: str
    numbers: Mapping[str, float | int | str | None] = field(default_factory=dict[str, float | int | str | None])


@dataclass(frozen=True, slots=True)
class ReportInput:
    """Everything that the report shows and the analysis does not hold.

    `provenance`: versions, revisions, hashes, device, as readable name -> value. `picked_configs`: behavior -> config that
    the study's declared rule picked; a behavior that is missing shows its pre-registered config, or its first.
    """

    study: str = "study"
    title: str = ""  # headline; empty: `question`, or the study's name
    question: str = ""
    settings: Mapping[str, CellValue] = field(
        default_factory=dict[str, CellValue]
    )  # dotted key of the study file -> value
    findings: Sequence[Finding] = ()
    audited: bool = True  # False: no audit was run (a table of somebody else)
    personas: Sequence[PersonaFacts] = ()
    similarities: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=schema_of(Similarity)))
    completions: Sequence[ReadCompletion] = ()
    trained: Sequence[TrainingRows] = ()  # empty for a table or adapters of somebody else
    curves: Sequence[TrainingCurve] = ()
    renderings: Sequence[ContextRendering] = ()
    provenance: Mapping[str, CellValue] = field(default_factory=dict[str, CellValue])
    cost: Sequence[CostLine] = ()
    registered: Sequence[Declaration] = ()  # frozen before training; empty: nothing was
    registration_hash: str = ""
    hypotheses: Mapping[str, str] = field(default_factory=dict[str, str])  # name -> statement, in the study's words
    behaviors: Sequence[str] = ()  # that this run's settings couple; a study's question may name more
    taught: Mapping[str, str] = field(default_factory=dict[str, str])  # behavior -> what its sources are trained to do
    gate: GateResult | None = None
    forecast: Sequence[ForecastScore] = ()  # of leakage, frozen before training; empty: none was made
    picked_configs: Mapping[str, str] = field(default_factory=dict[str, str])
    model: str = ""
    created: str = ""  # when the run was begun, as text for the reader: a report made again is the same file

    def records(self) -> dict[str, dict[str, CellValue]]:
        """Record id -> its cells, for every number of these inputs that a page may show."""
        found: dict[str, dict[str, CellValue]] = {}
        for key, value in self.settings.items():
            found[f"inputs/settings/{key}"] = {"value": value}
        for key, value in self.provenance.items():
            found[f"inputs/provenance/{key}"] = {"value": value}
        for one in self.trained:
            numbers = {"rows": one.rows, "epochs": one.epochs, "negatives": len(one.negatives), "seeds": len(one.seeds)}
            found[one.record] = dict[str, CellValue](numbers)
        for line in self.cost:
            found[f"inputs/cost/{line.name}"] = {"forecast": line.forecast, "spent": line.spent}
        for position, finding in enumerate(self.findings):
            found[f"inputs/finding/{position}"] = {"message": finding.message, "rows": len(finding.rows)}
        for level in ("error", "warning", "info"):
            found[f"inputs/findings/{level}"] = {"count": sum(f.level == level for f in self.findings)}
        for fact in self.personas:
            found[f"inputs/persona/{fact.persona}"] = {"prompt_tokens": fact.prompt_tokens}
        for position, fixed in enumerate(self.registered):
            found[f"inputs/registered/{position}"] = {"value": fixed.value}
        for key, value in (self.gate.numbers if self.gate else {}).items():
            found[f"inputs/gate/{key}"] = {"value": value}
        found |= {one.record: one.cells() for one in self.forecast}
        for read in self.completions:
            found[read.record] = {"score": read.score}
        found["inputs/study"] = {"created": self.created, "registration_hash": self.registration_hash}
        return found


@dataclass(frozen=True, slots=True)
class BoardEvent:
    """One line of a study's timeline: ISO time, the event's name, a few words."""

    time: str
    name: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class BoardCard:
    """One study on the board. `report` is a link relative to the page, "" while there is none."""

    study: str
    state: BoardState
    question: str = ""
    directory: str = ""
    hypotheses: Sequence[tuple[str, str]] = ()  # name and outcome: confirmed, falsified, inconclusive, open
    verdict: str = ""
    cost: Sequence[CostLine] = ()
    cells_done: int = 0
    cells_running: int = 0
    cells_failed: int = 0
    cells_total: int = 0
    report: str = ""
    timeline: Sequence[BoardEvent] = ()
