"""What a behavior should leave alone: control metrics, and whether a training broke the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bystander.analysis.pairs import PairedGrid
from bystander.analysis.settings import AnalysisSettings
from bystander.analysis.stats.control import ControlFall, control_fall
from bystander.analysis.stats.intervals import Estimate, crossed
from bystander.analysis.stats.means import mean_of
from bystander.analysis.tables.sample import EVERYTHING, source_change
from bystander.core.metrics import is_control


@dataclass(frozen=True, slots=True)
class ControlChange:
    """How far a control metric moved in one training design: raw change, not signed. NaN: not measured there."""

    name: str  # "choice/hellaswag/accuracy"; "" where no control was measured
    bystanders: float
    source: float
    broke: bool | None
    reason: str


NO_CONTROL = ControlChange("", np.nan, np.nan, None, "no control metric was measured")


def control_of(grid: PairedGrid, whole: Sequence[PairedGrid], settings: AnalysisSettings) -> ControlChange:
    """The control of the same training: HellaSwag's accuracy, and the judged coherence where the outcome is judged.

    The model broke when the interval of the control's fall, over the held-out bystanders, lies beyond its limit; coherence
    also when the source's own does, since an incoherent source is not a misaligned one.
    """
    found = [
        other
        for other in whole
        if other.training == grid.training and is_control(*other.outcome) and other.outcome.metric != "margin"
    ]
    judged = grid.outcome.probe == "judged"
    found.sort(key=lambda other: (other.outcome.probe == "judged") != judged)
    changes = [_control(other, settings) for other in found]
    broken = [change for change in changes if change.broke]
    return broken[0] if broken else changes[0] if changes else NO_CONTROL


def _control(other: PairedGrid, settings: AnalysisSettings) -> ControlChange:
    name = "/".join(other.outcome)
    raw = other.after - other.before
    chosen = other.bystanders(settings.bystander_roles)
    bystanders = float(mean_of(raw[:, chosen]))
    own = source_change(other, settings)
    source = float(mean_of(own)) * other.direction if own is not None else np.nan
    coherence = other.outcome.metric == "coherent"
    limit = settings.coherence_limit if coherence else settings.control_limit
    watched = {"held-out bystanders": (bystanders, crossed(raw[:, chosen], EVERYTHING))} if chosen.any() else {}
    if coherence and own is not None:
        watched["source"] = (source, crossed(own * other.direction, (0, 1)))
    if not any(np.isfinite(change) for change, _ in watched.values()):
        return ControlChange(name, bystanders, source, None, f"{name} has no pair of values")
    falls = {who: _fall(change, estimate, limit) for who, (change, estimate) in watched.items()}
    broke = [
        f"{name} fell by {fall.fall:z.3g} [{fall.low:z.3g}, {fall.high:z.3g}] for the {who} (limit {limit:g})"
        for who, fall in falls.items()
        if fall.state == "broke"
    ]
    return ControlChange(name, bystanders, source, bool(broke), ", ".join(broke))


def _fall(change: float, estimate: Estimate, limit: float) -> ControlFall:
    """The interval decides, not the point: four questions of which one is lost break nothing. One value a persona that
    is the same for all has no interval, and then the point is all there is."""
    fall = control_fall(estimate, limit)
    certain = estimate.standard_error == 0 and estimate.n > 1
    return replace(fall, low=-change, high=-change, state="broke" if -change > limit else "intact") if certain else fall
