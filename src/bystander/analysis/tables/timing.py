"""When leakage came, persona by persona, and whether it came to the similar ones first.

The timing of a persona is *half*: the checkpoint at which its curve first reaches half of its final leakage. It
does not depend on how much the persona leaks in the end. *Onset*, the first checkpoint whose leakage exceeds its noise,
does: a persona that leaks more is seen sooner, even where all personas move in step. So only half says whether
leakage spreads outwards; onset is described, and its correlation is labelled with what it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from bystander.analysis import keys
from bystander.analysis.keys import SeedRow
from bystander.analysis.predictors import Covariates
from bystander.analysis.settings import AnalysisSettings
from bystander.analysis.stats.means import Floats, mean_of
from bystander.analysis.stats.ranks import MIN_PERSONAS, permutation_p, spearman
from bystander.analysis.tables.evolution import DeclaredSimilarity, Trajectory

CLEAR = 2.0  # standard errors from 0; about 5 % two-sided


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamicsRow(SeedRow):
    """One row per training, persona and outcome: when its leakage came."""

    persona: keys.PersonaName
    category: keys.Category
    role: keys.RoleName
    similarity: DeclaredSimilarity
    final_leakage: Annotated[float, "leakage at the last checkpoint"]
    half_after: Annotated[float, "half of the final leakage is reached after this checkpoint ..."]
    half_by: Annotated[float, "... and by this one (interval-censored)"]
    half_point: Annotated[float, "linear interpolation between the two"]
    onset: Annotated[float, "first checkpoint whose leakage exceeds its noise and stays so; empty: none by the end"]
    status: keys.RowStatus
    reason: keys.RowReason


@dataclass(frozen=True, slots=True, kw_only=True)
class TimingCorrelationRow(SeedRow):
    """One row per training, outcome and timing: does leakage reach the similar personas first?"""

    timing: Annotated[str, "half or onset"]
    n: Annotated[int, "held-out bystanders with a timing"]
    rho: Annotated[float, "rank correlation of the timing with similarity; negative: the similar ones first"]
    p: Annotated[float, "two-sided, personas permuted"]
    status: keys.RowStatus
    reason: keys.RowReason


def curves(trajectory: Trajectory) -> tuple[list[tuple[str, str]], Floats, Floats]:
    """Units measured throughout, their leakage and its error -> (units, [units, checkpoints], [units, checkpoints])."""
    units = trajectory.always()
    leakage, errors = np.full((2, len(units), len(trajectory.grids)), np.nan)
    for step, grid in enumerate(trajectory.grids):
        index = {unit: i for i, unit in enumerate(zip(grid.kinds, grid.names, strict=True))}
        at = [index[unit] for unit in units]
        means = mean_of(grid.leakage, (0, 2))
        leakage[:, step], errors[:, step] = means[at], trajectory.errors[step][at]
    return units, leakage, errors


@dataclass(frozen=True, slots=True)
class Timing:
    """When a persona's leakage came. NaN half: its final leakage cannot be told from 0. NaN onset: none by the end."""

    half_after: float
    half_by: float
    half_point: float
    onset: float


def timing(checkpoints: Floats, leakage: Floats, errors: Floats) -> Timing:
    """Timing of one curve [checkpoints], checkpoint 0 (leakage 0, no error) left out of all three.

    Half is interval-censored: it came after `half_after` and by `half_by`, the first checkpoint with half of the final
    leakage; `half_point` interpolates on the curve as measured. Smoothing it first (isotonic regression) puts noisy
    curves later, and with them the dissimilar: a correlation where there is none.
    """
    clear = leakage > CLEAR * errors
    steady = np.flatnonzero(np.cumprod(clear[::-1])[::-1])
    onset = float(checkpoints[steady[0]]) if len(steady) else np.nan
    if not clear[-1]:
        return Timing(np.nan, np.nan, np.nan, onset)
    times, curve = np.concatenate([[0.0], checkpoints]), np.concatenate([[0.0], leakage])
    half = curve[-1] / 2
    by = int(np.argmax(curve >= half))
    share = (half - curve[by - 1]) / (curve[by] - curve[by - 1])
    return Timing(
        float(times[by - 1]), float(times[by]), float(times[by - 1] + share * (times[by] - times[by - 1])), onset
    )


def dynamics_rows(trajectory: Trajectory, similarity: Mapping[str, float], known: Covariates) -> list[DynamicsRow]:
    """Timing of every persona measured at every checkpoint. Empty where only one checkpoint was measured. `similarity`
    from `evolution.similarity_of`."""
    if len(trajectory.checkpoints) < 2:
        return []
    units, leakage, errors = curves(trajectory)
    last, seed = trajectory.last, trajectory.seed
    roles = dict(zip(zip(last.kinds, last.names, strict=True), last.roles, strict=True))
    rows: list[DynamicsRow] = []
    for (kind, name), curve, error in zip(units, leakage, errors, strict=True):
        if kind != "persona":
            continue
        whole = np.isfinite(curve).all() and np.isfinite(error).all()
        found = timing(np.array(trajectory.checkpoints), curve, error) if whole else Timing(*(np.nan,) * 4)
        flat = not np.isfinite(found.half_point)
        rows.append(DynamicsRow(
            **last.key("dynamics", seed, name),
            persona=name, category=known.category.get(name, ""), role=roles[kind, name],
            similarity=similarity.get(name) if name != last.training.source else None, final_leakage=float(curve[-1]),
            half_after=found.half_after, half_by=found.half_by, half_point=found.half_point, onset=found.onset,
            status="flat" if flat else "ok", reason="final leakage cannot be told from 0" if flat else "",
        ))  # fmt: skip
    return rows


def timing_correlation_rows(
    trajectory: Trajectory, dynamics: Sequence[DynamicsRow], settings: AnalysisSettings
) -> list[TimingCorrelationRow]:
    """Does timing follow similarity, over held-out bystanders? Spearman's rho and its two-sided permutation p.

    Negative: the similar ones first. Half leaves out personas without final leakage; onset puts those without onset last.
    Resampling unit: the persona. n < 4: no test.
    """
    if not dynamics:
        return []
    bystanders = [row for row in dynamics if row.role in settings.bystander_roles and row.similarity is not None]
    similarity = np.array([row.similarity for row in bystanders], dtype=float)
    half = np.array([row.half_point for row in bystanders], dtype=float)
    onset = np.array([row.onset for row in bystanders], dtype=float)
    larger = "grows with the size of the leakage: not evidence of spreading by itself"
    return [
        _correlation(trajectory, "half", similarity, half, "", settings),
        _correlation(trajectory, "onset", similarity, np.where(np.isnan(onset), np.inf, onset), larger, settings),
    ]


def _correlation(
    trajectory: Trajectory, name: str, similarity: Floats, times: Floats, meaning: str, settings: AnalysisSettings
) -> TimingCorrelationRow:
    known = ~np.isnan(times)
    x, y = similarity[known][None], times[known]
    n = int(known.sum())
    status = "few" if n < MIN_PERSONAS else "ok" if len(set(y)) > 1 else "constant"
    reason = {
        "few": f"{n} {'bystander' if n == 1 else 'bystanders'} with a timing: no test below {MIN_PERSONAS}",
        "constant": "all at the same time",
    }.get(status, meaning)
    grid, test = trajectory.last, status == "ok"
    return TimingCorrelationRow(
        **grid.key("timing_correlation", trajectory.seed, name), timing=name, n=n, rho=float(spearman(x, y)[0]) if test else np.nan,
        p=float(permutation_p(x, y, settings.permutations, settings.seed)[0]) if test else np.nan,
        status=status, reason=reason,
    )  # fmt: skip
