"""Does similarity foretell the leakage of a source that it was not fitted on (`stats.skill`), and does leakage go both ways
between two sources (`stats.asymmetry`). Over the sources of one behavior, arm and configuration; declared outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from bystander.analysis import keys
from bystander.analysis.grid import PairedGrid
from bystander.analysis.keys import OverSourcesRow, over_sources_key
from bystander.analysis.predictors import Covariates, SimilarityTable
from bystander.analysis.settings import AnalysisSettings
from bystander.analysis.stats.asymmetry import asymmetry
from bystander.analysis.stats.means import Floats
from bystander.analysis.stats.skill import MIN_SOURCES, skills
from bystander.analysis.tables.sample import sample_of

Value = Annotated[float, "R2 against that baseline: 1 foretold, 0 no better, below 0 worse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SkillRow(OverSourcesRow):
    """One row per outcome, predictor, scale and baseline: leave-one-source-out R2."""

    method: keys.PredictorName
    layer: keys.PredictorLayer
    scale: Annotated[str, "values: in the metric's unit, the level included; ranks: the order within source alone"]
    baseline: Annotated[str, "persona: its mean over the other sources; prompt length: a line fitted likewise"]
    n_sources: Annotated[int, "sources, each foretold from the others"]
    skill: Value
    low: keys.Low
    high: keys.High


@dataclass(frozen=True, slots=True, kw_only=True)
class AsymmetryRow(OverSourcesRow):
    """One row per pair of sources that were measured on each other, neither trained as the other's negative."""

    first: keys.SourceName
    second: keys.SourceName
    forth: Annotated[float, "leakage of the second where the first was trained"]
    back: Annotated[float, "leakage of the first where the second was trained"]
    difference: Annotated[float, "forth - back"]
    low: keys.Low
    high: keys.High
    p: Annotated[float, "two-sided"]
    p_holm: Annotated[float, "after Holm over the pairs"]


def skill_rows(
    members: Sequence[PairedGrid], similarities: SimilarityTable, known: Covariates, settings: AnalysisSettings
) -> list[SkillRow]:
    """The declared predictor and its rivals at the declared layer, over the sources of `members` (one outcome)."""
    samples = [(grid.training.source, *sample_of(grid, known, settings)[:2]) for grid in members]
    samples = [one for one in samples if one[2]]
    if len(samples) < MIN_SOURCES or settings.layer is None:
        return []
    everyone = sorted({name for _, _, names in samples for name in names})
    length = np.array([known.prompt_tokens.get(name, np.nan) for name in everyone])
    if not np.isfinite(length).all():
        return []
    place = {name: index for index, name in enumerate(everyone)}
    leakage = np.full((len(samples), len(everyone)), np.nan)
    for row, (_, sample, names) in enumerate(samples):
        leakage[row, [place[name] for name in names]] = sample.leakage
    found = [similarities.of(source, everyone) for source, _, _ in samples]
    rows: list[SkillRow] = []
    for method, layer in found[0].names:
        if layer not in (settings.layer, -1) or any((method, layer) not in other.names for other in found):
            continue
        values = np.stack([row for other in found if (row := other.of(method, layer)) is not None])
        usable = np.isfinite(leakage) & np.isfinite(values)
        rows += _rows(members[0], method, layer, values, leakage, length, usable)
    return rows


def _rows(
    grid: PairedGrid, method: str, layer: int, values: Floats, leakage: Floats, length: Floats,
    usable: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
) -> list[SkillRow]:  # fmt: skip
    made = skills(np.where(usable, values, 0.0), np.where(usable, leakage, 0.0), length, usable)
    parts = (
        ("values", "persona", made.values_persona), ("values", "prompt length", made.values_length),
        ("ranks", "persona", made.ranks_persona), ("ranks", "prompt length", made.ranks_length),
    )  # fmt: skip
    return [
        SkillRow(
            **over_sources_key("skill", grid.training, grid.outcome, method, layer, scale, baseline), method=method,
            layer=layer, scale=scale, baseline=baseline, n_sources=len(leakage), skill=skill.value, low=skill.low,
            high=skill.high,
        )
        for scale, baseline, skill in parts
    ]  # fmt: skip


def asymmetry_rows(members: Sequence[PairedGrid], settings: AnalysisSettings) -> list[AsymmetryRow]:
    """Every pair of sources of `members` (one outcome) that were measured on each other on the same questions and seeds."""
    if len(members) < 2 or len({grid.seeds for grid in members}) > 1:
        return []
    sources = [grid.training.source for grid in members]
    shared = sorted(set.intersection(*(set(grid.questions) for grid in members)))
    if not shared:
        return []
    leakage = np.full((len(sources), len(sources), len(members[0].seeds), len(shared)), np.nan)
    for row, grid in enumerate(members):
        questions = [grid.questions.index(name) for name in shared]
        usable = grid.bystanders(settings.bystander_roles) & grid.sound(settings.failed_limit)
        for column, other in enumerate(sources):
            at = [i for i, name in enumerate(grid.names) if name == other and usable[i]]
            if at:
                leakage[row, column] = grid.leakage[:, at[0]][:, questions]
    found = asymmetry(leakage)
    columns = zip(
        found.pairs,
        found.forth,
        found.back,
        found.difference,
        found.low,
        found.high,
        found.p,
        found.p_holm,
        strict=True,
    )
    return [
        AsymmetryRow(
            **over_sources_key("asymmetry", members[0].training, members[0].outcome, sources[a], sources[b]),
            first=sources[a], second=sources[b], forth=float(forth), back=float(back), difference=float(difference),
            low=float(low), high=float(high), p=float(p), p_holm=float(p_holm),
        )
        for (a, b), forth, back, difference, low, high, p, p_holm in columns
        if np.isfinite(difference)
    ]  # fmt: skip
