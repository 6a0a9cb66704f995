"""What each metric means, and which way the behavior pushes it. The probes declare them; here they are looked up.

Leakage is the change from checkpoint 0 *in the behavior's direction*: `direction * (after - before)`. A metric that a
behavior does not push (HellaSwag, coherence) is a control: its change is reported and never called leakage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

from bystander.core import doors

Outcome = tuple[str, str, str]  # probe, dataset, metric


@dataclass(frozen=True, slots=True)
class Metric:
    """`unit`: fraction in [0, 1], nats, nats per token, or score 0-100. `direction`: +1 if the behavior raises it.
    `limit`: as a control, the fall beyond which a model counts as broken, where the study's limit for its unit is not meant.
    `label`: what it is, for a reader; `short`: in two or three words, for an axis. `spread`: what a plan assumes before
    anything is measured, as (standard deviation of one item's change, of a persona's true change), in its unit."""

    probe: str
    name: str
    direction: Literal[1, -1]
    unit: Literal["fraction", "nats", "nats/token", "score"]
    label: str
    short: str
    binary: bool = False  # each item is 0 or 1, so that McNemar's test applies
    spread: tuple[float, float] | None = None
    limit: float | None = None


@cache
def declared() -> Mapping[tuple[str, str], Metric]:
    """(probe, name) -> metric, of every probe that comes through the door. A package's probe that cannot be imported is
    told when it is asked for, not here."""
    probes = [doors.load("probe", name) for name in doors.names("probe")]
    return {(metric.probe, metric.name): metric for probe in probes for metric in probe.metrics}


def metric(probe: str, name: str) -> Metric:
    """The metric of that probe and name. Raises KeyError for one that no probe declares."""
    return declared()[probe, name]


def outcomes_of(behavior: str) -> tuple[Outcome, ...]:
    """(probe, dataset, metric) that a behavior's claim rests on, finest first: the headline metrics of the probes that
    read it. Of a behavior that comes from a file, and so through no door, the sets are called as the behavior is."""
    if behavior not in doors.names("behavior"):
        probes = {name: doors.load("probe", name) for name in doors.names("probe")}
        return tuple((name, behavior, metric) for name, probe in probes.items() for metric in probe.of_files)
    read_by: tuple[str, ...] = doors.load("behavior", behavior).read_by
    return tuple((probe, dataset, name) for probe in read_by for dataset, name in doors.load("probe", probe).headline)


def is_control(probe: str, dataset: str, name: str) -> bool:
    """Whether a probe declares that dataset, or that metric, a control."""
    controls: tuple[str, ...] = doors.load("probe", probe).controls if probe in doors.names("probe") else ()
    return dataset in controls or name in controls


def controls() -> list[str]:
    """Every declared control as `probe/dataset` or `probe/metric`, sorted."""
    return sorted(
        f"{probe}/{control}" for probe in doors.names("probe") for control in doors.load("probe", probe).controls
    )
