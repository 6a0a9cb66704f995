"""Stopping a training at a dose: where the source's gain comes into the band that the study names.

Arms, sources and recipes that end at different doses differ at the end whatever they teach. The gain is the change of the
source's mean from the untrained model, in the behavior's direction, on the items that both answered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from bystander.core.metrics import metric
from bystander.core.records import Context
from bystander.lm.model import LoadedModel
from bystander.probe.base import Probe
from bystander.study.config.blocks import TrainTo
from bystander.study.store.records import DoseReached


class Stop(Protocol):
    """Says at which steps a training is looked at, and whether it ends there."""

    @property
    def steps(self) -> frozenset[int]:
        """The steps after which `reached` is asked, the adapter on."""
        ...

    def reached(self, step: int) -> bool:
        """Whether the training ends after this step."""
        ...

    def said(self) -> DoseReached:
        """How it came out, once the training is over."""
        ...


@dataclass(frozen=True, slots=True)
class SourceReading:
    """The source's values of the metric, as the model stands."""

    loaded: LoadedModel
    probe: Probe
    context: Context
    outcome: tuple[str, str, str]

    def values(self) -> dict[str, float]:
        """Item -> value, of the items that have one."""
        _, dataset, name = self.outcome
        return {
            m.item: m.value
            for unit in self.probe.run(self.loaded, [self.context])
            for m in unit.measurements
            if (m.dataset, m.metric) == (dataset, name) and m.value is not None
        }


class AtDose:
    """Ends a training where its source's gain is in the band. `before`: the untrained model's values by item."""

    def __init__(
        self, asked: TrainTo, reading: SourceReading, before: Mapping[str, float], total: int,
        log: list[dict[str, object]],
    ) -> None:  # fmt: skip
        self._asked, self._reading, self._before, self._total, self._log = asked, reading, before, total, log
        self._direction = metric(asked.outcome[0], asked.outcome[2]).direction

    @property
    def steps(self) -> frozenset[int]:
        """Every `every` steps, and the last."""
        return frozenset([*range(self._asked.every, self._total, self._asked.every), self._total])

    def gain(self) -> float:
        """The source's gain as the model stands; NaN where no item has a value on both sides."""
        after = self._reading.values()
        both = [after[item] - self._before[item] for item in after if item in self._before]
        return self._direction * sum(both) / len(both) if both else math.nan

    def reached(self, step: int) -> bool:
        """Read the gain, write it into the log of the step, and say whether it is in the band."""
        found = self.gain()
        for one in self._log:
            one.setdefault("source_gain", None)
        self._log[step - 1]["source_gain"] = None if math.isnan(found) else found
        low, high = self._asked.band
        return low <= found <= high

    def said(self) -> DoseReached:
        """In the band, passed over (above it at some reading, never in it), below it, or not measured."""
        gains = [float(str(one["source_gain"])) for one in self._log if one.get("source_gain") is not None]
        low, high = self._asked.band
        last = gains[-1] if gains else None
        if last is None:
            state = "not measured"
        elif low <= last <= high:
            state = "in the band"
        else:
            state = "passed over" if max(gains) > high else "below"
        return DoseReached(self._asked.metric, low, high, state, last, len(self._log), self._total)


@dataclass(frozen=True, slots=True)
class AsTwin:
    """Ends a benign training at the very step of the training that it is measured against."""

    twin: DoseReached

    @property
    def steps(self) -> frozenset[int]:
        """That step."""
        return frozenset([self.twin.step])

    def reached(self, step: int) -> bool:
        """Whether this is it."""
        return step == self.twin.step

    def said(self) -> DoseReached:
        """The twin's own words, but for the gain: nothing was coupled here."""
        one = self.twin
        return DoseReached(one.metric, one.low, one.high, "as its contrastive twin", None, one.step, one.steps)
