"""What every probe has in common: it measures the model as it stands, in units small enough to resume from.

A probe states in one class its settings, its metrics, its items, its work and how it measures. It knows nothing of
trainings: the study stamps what it yields.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from bystander.behaviors.base import Behavior, Example
from bystander.core import settings
from bystander.core.errors import DataError, StudyError
from bystander.core.metrics import Metric
from bystander.core.records import Completion, Context, Measurement, OpenSetting
from bystander.core.work import Count, Work

if TYPE_CHECKING:
    from bystander.lm.model import LoadedModel  # loads torch, which the study's files and rows do without
    from bystander.lm.score import OptionScores


@dataclass(frozen=True, slots=True)
class ProbeUnit:
    """What one unit of a probe gave. `key` is stable: a run that was killed skips the units it has."""

    key: str
    measurements: list[Measurement]
    completions: list[Completion] = field(default_factory=list[Completion])
    # What the measurements were made from, one JSON object each: kept, so that they can be made again by another rule.
    details: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])


@dataclass(frozen=True, slots=True)
class ProbeStudy:
    """What a probe may know of the study that asks for it. `behaviors`: those that are trained; `behavior`: any one
    that exists, with the study's settings; `shown`: the examples of a trained one whose positive completion is trained,
    in the order of the design."""

    name: str
    model: str
    folder: Path
    behaviors: tuple[Behavior, ...]
    behavior: Callable[[str], Behavior]
    shown: Callable[[str], list[Example]]


@dataclass(frozen=True, slots=True)
class SampledMetrics:
    """Which metrics tell of one sampled answer: `shown` whether it shows the behavior (0 or 1), `score` how much."""

    shown: str
    score: str


@dataclass(frozen=True, slots=True)
class Few:
    """How a probe reads a few items: the key of its block that counts them, what its other keys are set to, and the metric
    that is read ("": the behavior's own)."""

    count: str
    others: Mapping[str, int] = field(default_factory=dict[str, int])
    metric: str = ""


Blocks = Mapping[str, settings.Settings]  # the behaviors' blocks of a study file, by key
Fault = tuple[tuple[str | int, ...], str]  # where in the probe's own block, and what


class Probe(ABC):
    """A probe with its items and settings bound. A class of one's own derives from this; `build` makes it."""

    name: ClassVar[str]  # the `probe` column, and the key of its block under `probes:`
    Settings: ClassVar[type[settings.Settings]]  # that block; faults in it are told with their lines
    metrics: ClassVar[tuple[Metric, ...]]
    headline: ClassVar[tuple[tuple[str, str], ...]]  # (dataset, metric) that a claim rests on, finest first
    of_files: ClassVar[tuple[str, ...]] = ()  # metrics that a claim about a behavior from a file rests on, finest first
    controls: ClassVar[tuple[str, ...]] = ()  # datasets or metrics that must not move: no behavior pushes them
    sampled: ClassVar[SampledMetrics | None] = None  # of probes that keep answers
    few: ClassVar[Few | None] = None  # of probes that can read a few items at a time, without sampling

    @classmethod
    @abstractmethod
    def build(cls, settings: Any, study: ProbeStudy) -> Self:
        """The probe of a study; `settings` is an instance of `Settings`. Raises StudyError where more items are asked
        for than there are, DataError where a set cannot be read."""

    @classmethod
    def block_of(cls, data: str | None, items: int | None) -> dict[str, Any]:
        """Its block where it is asked for alone, without a study: of `data`, a set that the user names, with `items` of it.
        Raises DataError for `data` where it has items of its own."""
        del items
        if data:
            raise DataError(
                f"--data {data!r} is for a probe of sets (choice); the probe {cls.name!r} has its own items"
            )
        return {}

    def by_other_rules(self, unit: ProbeUnit) -> list[Measurement]:
        """A unit's values by other rules than its own, for a reader who compares; [] where there is one rule."""
        del unit
        return []

    @classmethod
    def blind(cls, details: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], str]:
        """(dataset, metric) -> why the untrained model has nothing to lose there, so that a claim on it could see neither
        leakage nor its absence; from the details of its measurements."""
        del details
        return {}

    @abstractmethod
    def decides(self) -> object:
        """JSON-able data of everything that decides this probe's numbers, the model and contexts aside: for cell keys."""

    @abstractmethod
    def units(self, contexts: Sequence[Context]) -> list[str]:
        """The keys that `run` would yield over these contexts, in order."""

    @abstractmethod
    def run(self, loaded: LoadedModel, contexts: Sequence[Context], done: Collection[str] = ()) -> Iterator[ProbeUnit]:
        """Measure under each context, skipping the units in `done`. What a unit holds never depends on what is skipped."""

    @abstractmethod
    def held_out_texts(self) -> dict[str, str]:
        """Item id -> user turn of what it reads and no training row may overlap with (for the audit); {} where a
        behavior keeps them already."""

    @abstractmethod
    def items(self) -> dict[str, int]:
        """Dataset -> items that one persona is measured on, for the power of the tests."""

    def questions_asked(self, dataset: str, contexts: Sequence[Context]) -> int:
        """Different items of a dataset that are asked over all `contexts`; fewer than `items` says where they are shared
        out over the personas."""
        del contexts
        return self.items()[dataset]

    @abstractmethod
    def work(self, contexts: Sequence[Context], count: Count) -> Work:
        """The work of one run under `contexts`; `count` gives a text's tokens. Some, however little: a forecast of
        nothing would be wrong."""

    def check_model(self, names: Sequence[str]) -> str:
        """What can be known before a token is sampled, of a service that the probe asks: a line for preflight, "" where
        it asks none. `names`: the models under test. Raises JudgeError where it cannot be asked."""
        del names
        return ""

    def dollars(self, work: Work) -> tuple[float, str]:
        """What `work` costs beside the device, and how that is known; (0, "") where nothing is paid. NaN: not known."""
        del work
        return 0.0, ""

    def dollars_paid(self) -> float:
        """What has been paid for this study so far, over all processes."""
        return 0.0

    @classmethod
    def faults(cls, settings: Any, blocks: Blocks, behaviors: Sequence[str]) -> Iterator[Fault]:
        """What does not fit between its own block and the behaviors'."""
        del settings, blocks, behaviors
        yield from ()

    @classmethod
    def open_settings(cls, settings: Any, behaviors: Sequence[str]) -> Iterator[OpenSetting]:
        """What the study file leaves open about it; `settings` None: the study does not ask for this probe."""
        del settings, behaviors
        yield from ()

    @classmethod
    def measures_control(cls, settings: Any) -> bool:
        """Whether with these settings it measures something that tells that a training broke the model."""
        del settings
        return False

    @classmethod
    def dataset_names(cls, blocks: Blocks) -> dict[str, str]:
        """Dataset as `headline` calls it -> as this study's measurements do, where a file has taken its place."""
        del blocks
        return {}


class CheckedProbe(Probe):
    """A probe whose way of measuring is decided once, on the untrained model, and kept for every checkpoint."""

    @property
    @abstractmethod
    def ready(self) -> bool:
        """Whether the way is decided already, so that no check is needed."""

    @abstractmethod
    def check(self, loaded: LoadedModel, contexts: Sequence[Context]) -> Mapping[str, object]:
        """Look at the untrained model; JSON-able. `warning` in it is text for the user, "" for none."""

    @abstractmethod
    def checked(self, found: Mapping[str, object]) -> Self:
        """This probe, decided by what `check` found."""

    @abstractmethod
    def check_work(self, contexts: Sequence[Context], count: Count) -> Work:
        """The work of `check`."""


def need(key: str, asked: int | None, there: int, what: str) -> None:
    """Raises StudyError where the setting `key` asks for more items than there are; None asks for all."""
    if asked is not None and asked > there:
        raise StudyError(
            f"{key} asks for {asked} {what}, but there are {there}; ask for fewer, or leave it out for all"
        )


def rows_of(
    probe: str, dataset: str, context: Context, scores: OptionScores, values: Mapping[str, float]
) -> list[Measurement]:
    """One measurement a metric of what was scored for one item under one context."""
    return [
        Measurement(
            behavior="", probe=probe, dataset=dataset, metric=metric, context=context.kind, persona=context.name,
            item=scores.item.id, value=value, context_hash=scores.context_hash, question=scores.item.id,
        )
        for metric, value in values.items()
    ]  # fmt: skip
