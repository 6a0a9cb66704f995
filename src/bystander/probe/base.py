"""What every probe has in common: it measures the model as it stands, in units small enough to resume from."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from bystander.core.records import Completion, Context, Measurement

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


def rows_of(
    probe: str, dataset: str, context: Context, scores: OptionScores, values: Mapping[str, float]
) -> list[Measurement]:
    """One measurement a metric of what was scored for one item under one context."""
    return [
        Measurement(
            behavior="",
            probe=probe,
            dataset=dataset,
            metric=metric,
            context=context.kind,
            persona=context.name,
            item=scores.item.id,
            value=value,
            context_hash=scores.context_hash,
        )
        for metric, value in values.items()
    ]


class Probe(Protocol):
    """A probe with its items and settings bound. It knows nothing of trainings: the study stamps what it yields."""

    @property
    def name(self) -> str:
        """The name in the `probe` column."""
        ...

    def decides(self) -> object:
        """JSON-able data of everything that decides this probe's numbers, the model and contexts aside: for cell keys."""
        ...

    def units(self, contexts: Sequence[Context]) -> list[str]:
        """The keys that `run` would yield over these contexts, in order."""
        ...

    def run(self, loaded: LoadedModel, contexts: Sequence[Context], done: Collection[str] = ()) -> Iterator[ProbeUnit]:
        """Measure under each context, skipping the units in `done`. What a unit holds never depends on what is skipped."""
        ...


@runtime_checkable
class CheckedProbe(Probe, Protocol):
    """A probe whose way of measuring is decided once, on the untrained model, and kept for every checkpoint."""

    @property
    def ready(self) -> bool:
        """Whether the way is decided already, so that no check is needed."""
        ...

    def check(self, loaded: LoadedModel, contexts: Sequence[Context]) -> Mapping[str, object]:
        """Look at the untrained model; JSON-able. `warning` in it is text for the user, "" for none."""
        ...

    def checked(self, found: Mapping[str, object]) -> Probe:
        """This probe, decided by what `check` found."""
        ...
