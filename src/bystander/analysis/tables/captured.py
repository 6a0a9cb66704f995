"""Whom the training captured: bystanders and bare contexts whose leakage exceeds half of the source's.

Estimands and resampling units: `stats.capture`, `stats.half_capture`, `stats.bimodality`. Bystanders (personas) and bare
contexts are families of their own: Holm is over each. One row a training, pooled over seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from bystander.analysis import keys
from bystander.analysis.grid import PairedGrid
from bystander.analysis.keys import DesignRow
from bystander.analysis.settings import AnalysisSettings
from bystander.analysis.stats.benign import PerBystander, per_bystander
from bystander.analysis.stats.bimodality import Dip, dip_test
from bystander.analysis.stats.capture import Captures, captures
from bystander.analysis.stats.means import Floats, mean_of
from bystander.analysis.tables.sample import source_change
from bystander.core.errors import few_names
from bystander.core.hashing import generator

LEVEL = 0.05
NAMED = 40  # names that a row holds; the rest are counted, and stand in the leakage table


@dataclass(frozen=True, slots=True, kw_only=True)
class CapturedRow(DesignRow):
    """One row per training and outcome: who is captured, how many, and what tells them from the others."""

    against: keys.Against
    n: keys.PersonaCount
    share_of_source: Annotated[float, "a bystander is captured above this share of the source's leakage"]
    threshold: Annotated[float, "that share of the source's leakage, in the metric's unit"] = np.nan
    captured: Annotated[int | None, "bystanders captured by the estimate"] = None
    low: Annotated[int | None, "lower end of the 95 % interval of how many truly are: error of items and seeds"] = None
    high: Annotated[int | None, "upper end of it"] = None
    share: Annotated[float, "captured / n"] = np.nan
    share_low: keys.Low = np.nan
    share_high: keys.High = np.nan
    names: Annotated[str, "who, most first, comma-separated"] = ""
    confirmed: Annotated[str, "of them those of whom it is shown, p below 0.05 after Holm over the bystanders"] = ""
    n_bare: Annotated[int, "held-out bare contexts: no persona, as a deployed model is met"]
    bare: Annotated[str, "of them those captured by the estimate"] = ""
    bare_confirmed: Annotated[str, "of them those of whom it is shown, Holm over the bare contexts"] = ""
    p_largest: Annotated[float, "the largest bystander leaks: smallest one-sided p after Holm over the bystanders"] = (
        np.nan
    )
    dip: Annotated[float, "Hartigan's dip of the bystanders' leakage: distance to one group"] = np.nan
    dip_p: Annotated[float, "p of it: below 0.05 there are two groups or more"] = np.nan
    groups: Annotated[str, "what that says, in words"] = ""
    method: keys.PredictorName = ""
    layer: keys.PredictorLayer = -1
    half: Annotated[
        float, "similarity at which half are captured, drawn to the other sources' where it says little"
    ] = np.nan
    half_low: keys.Low = np.nan
    half_high: keys.High = np.nan
    half_beyond: keys.HalfBeyond = None
    half_low_beyond: keys.EndBeyond = None
    half_high_beyond: keys.EndBeyond = None
    status: keys.RowStatus
    reason: keys.RowReason


@dataclass(frozen=True)
class Group:
    """Bystanders, or bare contexts, of a grid with their tests."""

    units: NDArray[np.intp]
    names: tuple[str, ...]
    tests: PerBystander
    captures: Captures | None  # None: the source was not measured

    def named(self, flags: NDArray[np.bool_]) -> str:
        """The flagged ones, most leakage first."""
        order = [i for i in np.argsort(-self.tests.leakage, kind="stable") if flags[i]]
        return few_names([self.names[i] for i in order], NAMED)


def groups_of(grid: PairedGrid, settings: AnalysisSettings) -> tuple[Group, Group]:
    """Bystanders and held-out bare contexts that can be used, each with its tests."""
    sound, own = grid.sound(settings.failed_limit), source_change(grid, settings)
    roles = settings.bystander_roles
    return _group(grid, grid.bystanders(roles) & sound, own, settings), _group(
        grid, grid.bare(roles) & sound, own, settings
    )


def _group(grid: PairedGrid, chosen: NDArray[np.bool_], own: Floats | None, settings: AnalysisSettings) -> Group:
    units = np.flatnonzero(chosen)
    leakage = grid.leakage[:, units]
    found = None if own is None else _captures(leakage, own, settings.captured_share)
    return Group(units, tuple(grid.names[i] for i in units), per_bystander(leakage, grid.unit), found)


def _captures(leakage: Floats, own: Floats, share: float) -> Captures:
    """Of a table with one number a persona, by the estimate alone: it carries no error of the items."""
    if own.size > 1 or not own.item() > 0:
        return captures(leakage, own, share)
    mean = leakage[0, :, 0]
    nan = np.full(mean.size, np.nan)
    return Captures(mean > share * own.item(), mean, nan, nan, nan, 0, mean.size)


def unit_tests(groups: Sequence[Group]) -> dict[int, dict[str, float | bool]]:
    """Unit -> the columns of its own tests in the table of leakage. Nothing for the source and the negatives."""
    rows: dict[int, dict[str, float | bool]] = {}
    for group in groups:
        tests, found = group.tests, group.captures
        for place, unit in enumerate(group.units.tolist()):
            row: dict[str, float | bool] = {
                "p_above": float(tests.p[place]), "p_above_holm": float(tests.p_holm[place]),
                "p_below_holm": float(tests.p_below_holm[place]),
            }  # fmt: skip
            if found is not None and not found.reason:
                row |= {
                    "captured": bool(found.captured[place]), "p_captured_holm": float(found.p_holm[place]),
                    "p_not_captured_holm": float(found.p_not_holm[place]),
                }  # fmt: skip
            rows[unit] = row
    return rows


def captured_row(grid: PairedGrid, people: Group, bare: Group, settings: AnalysisSettings) -> CapturedRow:
    """The row of one training, without where half are captured: that needs the other sources (`with_halves`)."""
    n = len(people.names)
    head: dict[str, Any] = {
        "record": grid.record("captured", None), "training": grid.training, "outcome": grid.outcome,
        "against": grid.against, "n": n, "share_of_source": settings.captured_share, "n_bare": len(bare.names),
        "p_largest": people.tests.p_any,
    }  # fmt: skip
    found = people.captures
    if found is None or not n:
        reason = (
            "no held-out bystander" if found is not None else "the source was not measured, or too much of it failed"
        )
        return CapturedRow(**head, status="empty", reason=reason)
    if found.reason:
        return CapturedRow(**head, status="constant", reason=f"nobody has a share of what is not there: {found.reason}")
    dip = _dip(grid, people)
    bare_found = bare.captures
    own = source_change(grid, settings)
    return CapturedRow(
        **head, threshold=np.nan if own is None else settings.captured_share * float(mean_of(own)), captured=found.count, low=found.low, high=found.high, share=found.count / n, share_low=found.low / n,
        share_high=found.high / n, names=people.named(found.captured), confirmed=people.named(found.p_holm < LEVEL),
        bare="" if bare_found is None else bare.named(bare_found.captured),
        bare_confirmed="" if bare_found is None else bare.named(bare_found.p_holm < LEVEL),
        dip=dip.dip, dip_p=dip.p, groups=_groups(dip), status="ok", reason="",
    )  # fmt: skip


def _dip(grid: PairedGrid, people: Group) -> Dip:
    """Over bystanders; means of 0/1 answers are spread evenly within their step first, since ties look like modes."""
    answers = int(np.isfinite(grid.leakage[:, people.units]).sum(axis=(0, 2)).max(initial=0))
    step = 1 / answers if grid.binary and answers else 0.0
    return dip_test(people.tests.leakage, generator("dip", grid.record("captured", None)), step)


def _groups(dip: Dip) -> str:
    if not np.isfinite(dip.p):
        return "too few bystanders, or none differ: nothing is said of groups"
    return "two groups or more" if dip.p < LEVEL else "two groups are not shown: one group, or a slope, is not excluded"
