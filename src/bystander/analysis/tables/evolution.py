"""Training watched: leakage at every checkpoint, when it came, and whether it came to the similar ones first.

The timing of a persona is *half*: the checkpoint at which its curve first reaches half of its final leakage. It
does not depend on how much the persona leaks in the end. *Onset*, the first checkpoint whose leakage stands out of its
noise, does: a persona that leaks more stands out sooner, even where all personas move in step. So only half says whether
leakage spreads outwards; onset is described, and its correlation is labelled with what it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bystander.analysis.pairs import Grid
from bystander.analysis.predictors import Facts, SimilarityTable
from bystander.analysis.settings import Settings
from bystander.analysis.stats.intervals import crossed
from bystander.analysis.stats.means import mean_of, variance_of
from bystander.analysis.stats.ranks import MIN_PERSONAS, permutation_p, spearman
from bystander.analysis.tables.leakage import names_of, over_seeds, record

Floats = NDArray[np.float64]
Rows = list[dict[str, object]]
STANDS_OUT = 2.0  # standard errors; about 5 % two-sided
QUINTILE_COUNT = 5


@dataclass(frozen=True)
class Course:
    """One outcome of one training design over its checkpoints: a grid at each, rising, without checkpoint 0."""

    checkpoints: tuple[float, ...]
    grids: tuple[Grid, ...]
    seed: int | None

    @property
    def last(self) -> Grid:
        """The grid at the last checkpoint."""
        return self.grids[-1]

    def always(self) -> list[tuple[str, str]]:
        """Units (kind, name) measured at every checkpoint."""
        sets = [set(zip(grid.kinds, grid.names, strict=True)) for grid in self.grids]
        return sorted(set.intersection(*sets))


def similarity_of(course: Course, similarities: SimilarityTable, settings: Settings) -> dict[str, float]:
    """Similarity to the source by the declared predictor; empty where no layer was declared."""
    found = similarities.by_source.get(course.last.key[1], {})
    return {} if settings.layer is None else found.get((settings.method, settings.layer), {})


def quintiles_of(course: Course, similarity: dict[str, float], settings: Settings) -> dict[str, int]:
    """Fifth of similarity, 1 to 5, of each held-out bystander measured at every checkpoint."""
    chosen = set(np.array(course.last.names, dtype=object)[course.last.bystanders(settings.gradient_over)])
    names = [name for kind, name in course.always() if kind == "persona" and name in chosen and name in similarity]
    ranked = sorted(names, key=lambda name: (similarity[name], name))
    return {name: 1 + QUINTILE_COUNT * place // len(ranked) for place, name in enumerate(ranked)}


def evolution_rows(course: Course, similarities: SimilarityTable, facts: Facts, settings: Settings) -> Rows:
    """One row per persona or context and checkpoint, the untrained model included."""
    similarity = similarity_of(course, similarities, settings)
    fifth = quintiles_of(course, similarity, settings)
    rows: Rows = []
    for step, (checkpoint, grid) in enumerate(zip(course.checkpoints, course.grids, strict=True)):
        errors = standard_errors(grid)
        for place, (kind, name) in enumerate(zip(grid.kinds, grid.names, strict=True)):
            both = np.isfinite(grid.change[:, place])
            if not both.any():
                continue
            shown = name if kind == "persona" else f"({kind})"
            common: dict[str, object] = {
                **names_of(grid, course.seed),
                "persona": name,
                "category": facts.category.get(name, "") if kind == "persona" else "",
                "context": kind,
                "role": grid.roles[place],
                "similarity": similarity.get(name) if kind == "persona" and name != grid.key[1] else None,
                "quintile": fifth.get(name) if kind == "persona" else None,
                "n_items": int(both.sum()),
            }
            before, after = (float(values[:, place][both].mean()) for values in (grid.before, grid.after))
            rows.append(
                {
                    **common,
                    "record": record("evolution", grid, course.seed, shown, f"{checkpoint:g}"),
                    "checkpoint": checkpoint,
                    "value": after,
                    "leakage": grid.direction * (after - before),
                    "standard_error": errors[place],
                }
            )
            if step == len(course.grids) - 1:
                start = {
                    "record": record("evolution", grid, course.seed, shown, "0"),
                    "checkpoint": 0.0,
                    "value": before,
                }
                rows.append({**common, **start, "leakage": 0.0})
    return rows


def standard_errors(grid: Grid) -> Floats:
    """Standard error of each unit's leakage over questions (and seeds, where there are several) -> [units]."""
    if len(grid.seeds) > 1:
        return np.array([estimate.standard_error for estimate in over_seeds(grid)])
    count = np.isfinite(grid.change[0]).sum(axis=1)
    return np.sqrt(variance_of(grid.change[0], 1) / np.maximum(count, 1))


def curves(course: Course) -> tuple[list[tuple[str, str]], Floats, Floats]:
    """Units measured throughout, their leakage and its error -> (units, [units, checkpoints], [units, checkpoints])."""
    units = course.always()
    leakage, errors = np.full((2, len(units), len(course.grids)), np.nan)
    for step, grid in enumerate(course.grids):
        place = {unit: index for index, unit in enumerate(zip(grid.kinds, grid.names, strict=True))}
        at = [place[unit] for unit in units]
        means = mean_of(grid.change, (0, 2))
        leakage[:, step], errors[:, step] = means[at], standard_errors(grid)[at]
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
    curves later, and with them the dissimilar: a spread where there is none.
    """
    clear = leakage > STANDS_OUT * errors
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


def dynamics_rows(course: Course, similarities: SimilarityTable, facts: Facts, settings: Settings) -> Rows:
    """Timing of every persona measured at every checkpoint. Empty where only one checkpoint was measured."""
    if len(course.checkpoints) < 2:
        return []
    similarity = similarity_of(course, similarities, settings)
    units, leakage, errors = curves(course)
    roles = dict(zip(zip(course.last.kinds, course.last.names, strict=True), course.last.roles, strict=True))
    rows: Rows = []
    for (kind, name), curve, error in zip(units, leakage, errors, strict=True):
        if kind != "persona":
            continue
        whole = np.isfinite(curve).all() and np.isfinite(error).all()
        found = timing(np.array(course.checkpoints), curve, error) if whole else Timing(*(np.nan,) * 4)
        flat = not np.isfinite(found.half_point)
        rows.append(
            {
                "record": record("dynamics", course.last, course.seed, name),
                **names_of(course.last, course.seed),
                "persona": name,
                "category": facts.category.get(name, ""),
                "role": roles[kind, name],
                "similarity": similarity.get(name) if name != course.last.key[1] else None,
                "final_leakage": float(curve[-1]),
                "half_after": found.half_after,
                "half_by": found.half_by,
                "half_point": found.half_point,
                "onset": found.onset,
                "status": "flat" if flat else "ok",
                "reason": "final leakage cannot be told from 0" if flat else "",
            }
        )
    return rows


def spread_rows(course: Course, dynamics: Rows, settings: Settings) -> Rows:
    """Does timing follow similarity, over held-out bystanders? Spearman's rho and its two-sided permutation p.

    Negative: the similar ones first. Half leaves out personas without final leakage; onset puts those without onset last.
    Resampling unit: the persona. n < 4: no test.
    """
    rows: Rows = []
    bystanders = [row for row in dynamics if row["role"] in settings.gradient_over and row["similarity"] is not None]
    for name, column in (("half", "half_point"), ("onset", "onset")):
        times = np.array([row[column] for row in bystanders], dtype=float)
        if name == "onset":
            times = np.where(np.isnan(times), np.inf, times)
        kept = ~np.isnan(times)
        x = np.array([row["similarity"] for row in bystanders], dtype=float)[kept][None]
        n = int(kept.sum())
        enough = n >= MIN_PERSONAS and len(set(times[kept])) > 1
        status = "ok" if enough else "few" if n < MIN_PERSONAS else "constant"
        short = f"{n} {'bystander' if n == 1 else 'bystanders'} with a timing: no test below {MIN_PERSONAS}"
        meaning = "" if name == "half" else "grows with the size of the leakage: not evidence of spreading by itself"
        rows.append(
            {
                "record": record("spread", course.last, course.seed, name),
                **names_of(course.last, course.seed),
                "timing": name,
                "n": n,
                "rho": float(spearman(x, times[kept])[0]) if enough else None,
                "p": float(permutation_p(x, times[kept], settings.permutations, settings.seed)[0]) if enough else None,
                "status": status,
                "reason": short if status == "few" else "all at the same time" if status == "constant" else meaning,
            }
        )
    return rows if dynamics else []


def quintile_rows(course: Course, similarities: SimilarityTable, settings: Settings) -> Rows:
    """Mean leakage by fifth of similarity at every checkpoint; the interval is over personas, questions and seeds."""
    fifth = quintiles_of(course, similarity_of(course, similarities, settings), settings)
    rows: Rows = []
    for checkpoint, grid in zip(course.checkpoints, course.grids, strict=True):
        own = np.array([fifth.get(n, 0) if k == "persona" else 0 for k, n in zip(grid.kinds, grid.names, strict=True)])
        for quintile in sorted(set(fifth.values())):
            estimate = crossed(grid.change[:, own == quintile], (0, 1, 2)).within(grid.unit)
            rows.append(
                {
                    "record": record("quintiles", grid, course.seed, quintile, f"{checkpoint:g}"),
                    **names_of(grid, course.seed),
                    "quintile": quintile,
                    "checkpoint": checkpoint,
                    "n": int((own == quintile).sum()),
                    "leakage": estimate.value,
                    "low": estimate.low,
                    "high": estimate.high,
                }
            )
    return rows


def courses(by_checkpoint: Sequence[tuple[float, Sequence[Grid]]]) -> list[Course]:
    """Grids of all checkpoints, put together by training design and outcome; pooled over seeds, then each seed."""
    groups: dict[tuple[object, ...], list[tuple[float, Grid]]] = {}
    for checkpoint, members in by_checkpoint:
        for grid in members:
            groups.setdefault((*grid.key, *grid.outcome), []).append((checkpoint, grid))
    found: list[Course] = []
    for steps in groups.values():
        times = tuple(checkpoint for checkpoint, _ in steps)
        found.append(Course(times, tuple(grid for _, grid in steps), None))
        seeds = set.intersection(*(set(grid.seeds) for _, grid in steps))
        if len(steps[-1][1].seeds) > 1:
            for seed in sorted(seeds, key=str):
                found.append(Course(times, tuple(grid.one_seed(grid.seeds.index(seed)) for _, grid in steps), seed))
    return found
