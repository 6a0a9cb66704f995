"""Bystanders against the source over checkpoints, and two arms or two sources at the same dose (`stats.dose`).

Over the held-out bystanders that were measured at every checkpoint. One checkpoint is no curve: no row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Annotated

import numpy as np

from bystander.analysis import keys
from bystander.analysis.keys import DesignRow
from bystander.analysis.settings import AnalysisSettings
from bystander.analysis.stats.dose import Course, area_interval, dose_curve, matched_dose
from bystander.analysis.stats.multiplicity import holm
from bystander.analysis.tables.evolution import Trajectory

WITHIN = 0.9  # of the smaller dose: at the very end of a curve its slope is not known


@dataclass(frozen=True, slots=True, kw_only=True)
class DoseRow(DesignRow):
    """One row per training and outcome watched at several checkpoints: area under the dose curve."""

    against: keys.Against
    n: Annotated[int, "held-out bystanders measured at every checkpoint"]
    n_checkpoints: Annotated[int, "checkpoints after the untrained model"]
    dose: Annotated[float, "the largest leakage of the source on the curve"]
    turned_back: Annotated[int, "checkpoints put together with another, since the source had fallen back"]
    area: Annotated[
        float, "under the curve over that of a bystander who does as the source does: 0 contained, 1 follows"
    ]
    low: keys.Low
    high: keys.High
    p: Annotated[float, "two-sided, against 0: no leakage at any dose"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchedDoseRow(DesignRow):
    """One row per two trainings that differ in their arm or in their source, all else alike: bystanders' leakage when
    each one's source had leaked as much."""

    other_source: keys.SourceName
    other_arm: keys.ArmLabel
    n: Annotated[int, "held-out bystanders of both, measured at every checkpoint in both"]
    dose: Annotated[float, "the source's leakage that both reached: nine tenths of the smaller of the two largest"]
    difference: Annotated[float, "bystanders' mean leakage at that dose, less that in the other training"]
    low: keys.Low
    high: keys.High
    p: Annotated[float, "two-sided, against 0"]
    p_holm: Annotated[float, "after Holm over the pairs of this behavior, configuration and outcome"]


def dose_rows(found: Sequence[Trajectory], settings: AnalysisSettings) -> tuple[list[DoseRow], list[MatchedDoseRow]]:
    """Rows of the trajectories pooled over seeds."""
    rows: list[DoseRow] = []
    watched = [one for one in found if one.seed is None and len(one.checkpoints) > 1]
    for one in watched:
        names = _bystanders(one, settings)
        course = _course(one, names)
        if course is not None:
            rows.append(_row(one, course, len(names)))
    matched = [row for pair in _pairs(watched) if (row := _matched(*pair, settings)) is not None]
    return rows, _held(matched)


def _pairs(watched: Sequence[Trajectory]) -> Iterator[tuple[Trajectory, Trajectory]]:
    """Trainings of one behavior, configuration and outcome that differ in their arm or in their source."""
    for one, other in permutations(watched, 2):
        behavior, source, arm, config = one.last.training.design
        second, second_source, second_arm, second_config = other.last.training.design
        if one.last.outcome != other.last.outcome or (behavior, config) != (second, second_config):
            continue
        if (source == second_source and arm < second_arm) or (arm == second_arm and source < second_source):
            yield one, other


def _held(rows: Sequence[MatchedDoseRow]) -> list[MatchedDoseRow]:
    """The rows with p after Holm over the pairs of one behavior, configuration and outcome."""
    families: dict[object, list[int]] = {}
    for at, row in enumerate(rows):
        families.setdefault((row.training.behavior, row.training.config, row.outcome), []).append(at)
    held = np.full(len(rows), np.nan)
    for members in families.values():
        held[members] = holm(np.array([rows[at].p for at in members]))
    return [replace(row, p_holm=float(p)) for row, p in zip(rows, held, strict=True)]


def _row(one: Trajectory, course: Course, n: int) -> DoseRow:
    source, bystanders = course.means
    curve, area = dose_curve(source, bystanders), area_interval(course)
    return DoseRow(
        record=one.last.record("dose", None), training=one.last.training, outcome=one.last.outcome,
        against=one.last.against, n=n, n_checkpoints=len(one.checkpoints), dose=float(curve.dose[-1]),
        turned_back=curve.turned_back, area=area.value, low=area.low, high=area.high, p=area.p,
    )  # fmt: skip


def _matched(one: Trajectory, other: Trajectory, settings: AnalysisSettings) -> MatchedDoseRow | None:
    both = set(_bystanders(other, settings))
    names = [name for name in _bystanders(one, settings) if name in both]
    first, second = _course(one, names), _course(other, names)
    if first is None or second is None or first.bystanders.shape[::2] != second.bystanders.shape[::2]:
        return None
    if first.source.shape[2] != second.source.shape[2]:
        return None
    dose = WITHIN * min(float(dose_curve(*course.means).dose[-1]) for course in (first, second))
    if not dose > 0:
        return None
    found, last, beside = matched_dose(first, second, dose), one.last, other.last.training
    return MatchedDoseRow(
        record=last.record("matched_dose", None, beside.source, beside.arm), training=last.training,
        outcome=last.outcome, other_source=beside.source, other_arm=beside.arm, n=len(names), dose=dose,
        difference=found.value, low=found.low, high=found.high, p=found.p, p_holm=np.nan,
    )  # fmt: skip


def _bystanders(one: Trajectory, settings: AnalysisSettings) -> list[str]:
    chosen = one.last.bystanders(settings.bystander_roles) & one.last.sound(settings.failed_limit)
    held_out = {name for name, is_chosen in zip(one.last.names, chosen, strict=True) if is_chosen}
    return [name for kind, name in one.always() if kind == "persona" and name in held_out]


def _course(one: Trajectory, names: Sequence[str]) -> Course | None:
    """Leakage of the source and of `names` at every checkpoint; None where it was not measured on the same questions."""
    source = ("persona", one.last.training.source)
    same = {(grid.seeds, grid.questions) for grid in one.grids}
    if len(same) > 1 or not names or source not in one.always():
        return None
    parts = []
    for grid in one.grids:
        place = {unit: index for index, unit in enumerate(zip(grid.kinds, grid.names, strict=True))}
        at = [place[source], *(place["persona", name] for name in names)]
        parts.append(grid.leakage[:, at])
    leakage = np.stack(parts, axis=1)  # [seeds, checkpoints, 1 + personas, questions]
    if not np.isfinite(leakage).any(axis=(0, 3)).all():
        return None
    return Course(leakage[:, :, 0], leakage[:, :, 1:])
