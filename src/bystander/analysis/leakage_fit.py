"""A fit of leakage on sources that were measured: of values and of ranks, with baselines that need no model, intervals by
conformal prediction over held-out sources, and its skill on them. JSON-able, so that a fit can ship and be frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bystander.analysis.leakage_sources import LENGTH, PRIOR, Scale, SourceContexts
from bystander.analysis.stats.conformal import half_width
from bystander.analysis.stats.forecast_skill import (
    Places,
    foretold_apart,
    mean_elsewhere,
    persona_mean_foretold,
    ranks_within,
    skill_over,
)
from bystander.analysis.stats.leakage_model import LeakageModel, fit, left_out, standardized
from bystander.core.errors import DataError

Floats = NDArray[np.float64]
Baseline = Literal["persona_mean", "prompt_length", "base_prior"]
BASELINES: dict[Baseline, str] = {
    "persona_mean": "mean of the persona over other sources", "prompt_length": "prompt length", "base_prior": "base prior",
}  # fmt: skip
FEATURE_OF: dict[Baseline, str] = {"prompt_length": LENGTH, "base_prior": PRIOR}
LEVEL = 0.8  # of intervals: with five sources a conformal one ends up to 5 / 6
LEFT_OUT = ("cosine_layer10",)  # a second layer of the same predictor is no feature: layers are declared, not picked


@dataclass(frozen=True, slots=True)
class SkillNumbers:
    """Skill over one baseline with its 95 % interval; None where it could not be told."""

    value: float | None
    low: float | None
    high: float | None

    @property
    def beats(self) -> bool:
        """Whether the whole interval lies above 0."""
        return self.low is not None and self.low > 0


def finite(value: float) -> float | None:
    """What is not finite as None."""
    return float(value) if np.isfinite(value) else None


@dataclass(frozen=True)
class LeakageFit:
    """`features`: those of the models, in their order; `half_width` on the scale at `level`, None where it has no end;
    `persona_means`: mean rank of each persona over the sources, centered; `baselines`: models of ranks with one feature
    each. `skill` of ranks over each baseline and over none, left-out sources and personas. `prior`: nothing was fitted."""

    behavior: str
    outcome: str
    scale: Scale
    made_of: tuple[str, ...]
    features: tuple[str, ...]
    values: LeakageModel
    ranks: LeakageModel
    half_width: float | None
    level: float = LEVEL
    persona_means: Mapping[str, float] = field(default_factory=dict[str, float])
    baselines: Mapping[str, LeakageModel] = field(default_factory=dict[str, LeakageModel])
    skill: Mapping[str, SkillNumbers] = field(default_factory=dict[str, SkillNumbers])
    prior: bool = False

    @property
    def has_skill(self) -> bool:
        """Whether ranks beat no knowledge and every baseline."""
        return bool(self.skill) and all(one.beats for one in self.skill.values())

    def to_dict(self) -> dict[str, Any]:
        """For JSON; floats in full."""
        return asdict(self)

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> LeakageFit:
        """What `to_dict` gave. Raises DataError for anything else."""
        try:
            models = {key: _model(given[key]) for key in ("values", "ranks")}
            return _fit_of(given, models)
        except (KeyError, TypeError) as error:
            raise DataError(f"not a fit of leakage ({error}); make it anew with `bystander predict --fit`") from error


def _fit_of(given: Mapping[str, Any], models: Mapping[str, LeakageModel]) -> LeakageFit:
    found: dict[str, Any] = {**given, **models}
    for key in ("made_of", "features"):
        found[key] = tuple(given[key])
    found["baselines"] = {name: _model(one) for name, one in given["baselines"].items()}
    found["skill"] = {name: SkillNumbers(**one) for name, one in given["skill"].items()}
    return LeakageFit(**found)


def _model(given: Mapping[str, Any]) -> LeakageModel:
    found: dict[str, Any] = dict(given)
    for key in ("features", "weights"):
        found[key] = tuple(given[key])
    return LeakageModel(**found)


@dataclass(frozen=True)
class Stacked:
    """Rows of all sources, one a source and persona: `x` [n, features] standardized within source, 0 where a source does
    not know a feature; `values`, `ranks` [n]; `source`, `persona` [n] their numbers."""

    features: tuple[str, ...]
    x: Floats
    values: Floats
    ranks: Floats
    source: NDArray[np.int64]
    persona: NDArray[np.int64]
    personas: tuple[str, ...]

    def of(self, *features: str) -> Floats:
        """The columns of these features; nobody's are zeros."""
        if not features:
            return np.zeros((len(self.values), 0))
        return np.column_stack([
            self.x[:, self.features.index(one)] if one in self.features else np.zeros(len(self.values)) for one in features
        ])  # fmt: skip


def stacked(sources: Sequence[SourceContexts]) -> Stacked:
    """The rows of these sources. Raises DataError for none, or for outcomes that are no common scale."""
    if not sources:
        raise DataError("no source to fit on: none of the folders holds a training of this behavior and outcome")
    if len({one.scale for one in sources}) > 1:
        raise DataError("sources on different scales cannot be fitted together: give studies with one outcome")
    features = tuple(sorted({name for one in sources for name in one.features}))
    personas = tuple(sorted({name for one in sources for name in one.names}))
    place = {name: index for index, name in enumerate(personas)}
    source = np.repeat(np.arange(len(sources)), [len(one.names) for one in sources])
    columns = [
        np.column_stack([one.features.get(name, np.zeros(len(one.names))) for name in features]) for one in sources
    ]
    values = np.concatenate([one.leakage for one in sources])
    ranks = ranks_within(np.concatenate([one.change for one in sources]), source)
    return Stacked(
        features, np.concatenate([standardized(part) for part in columns]), values, ranks, source,
        np.array([place[name] for one in sources for name in one.names]), personas,
    )  # fmt: skip


def fit_leakage(sources: Sequence[SourceContexts]) -> LeakageFit:
    """The fit on these sources, which share a behavior and an outcome's scale. Raises DataError for too few personas."""
    rows = stacked(sources)
    features = tuple(name for name in rows.features if name not in LEFT_OUT)
    x = rows.of(*features)
    several = len(sources) > 1
    means = mean_elsewhere(rows.ranks, rows.source, rows.persona)
    half = np.inf
    if several:
        off = rows.values - left_out(x, rows.values, rows.source, features)
        half = half_width([off[rows.source == one] for one in range(len(sources))], LEVEL)
    ranks_of = {str(baseline): rows.of(name) for baseline, name in FEATURE_OF.items()} | {
        "persona_mean": means[:, None]
    }
    return LeakageFit(
        sources[0].behavior, sources[0].outcome, sources[0].scale, tuple(one.said for one in sources), features,
        fit(x, rows.values, rows.source, features), fit(x, rows.ranks, rows.source, features),
        finite(half),
        persona_means=_persona_means(rows),
        baselines={name: fit(one, rows.ranks, rows.source, [name]) for name, one in ranks_of.items()},
        skill=rank_skill(rows, features) if several else {},
    )  # fmt: skip


def _persona_means(rows: Stacked) -> dict[str, float]:
    count = np.bincount(rows.persona)
    return dict(zip(rows.personas, (np.bincount(rows.persona, rows.ranks) / count).tolist(), strict=True))


def baselines_foretold(rows: Stacked, leakage: Floats) -> dict[str, Floats]:
    """What no knowledge and each baseline foretell of every row, its source and persona left out."""
    known = {"no_knowledge": foretold_apart(rows.of(), leakage, rows.source, rows.persona, [])}
    known["persona_mean"] = persona_mean_foretold(leakage, rows.source, rows.persona)
    for baseline, name in FEATURE_OF.items():
        known[baseline] = foretold_apart(rows.of(name), leakage, rows.source, rows.persona, [name])
    return known


def rank_skill(rows: Stacked, features: Sequence[str]) -> dict[str, SkillNumbers]:
    """Skill of ranks over no knowledge and over each baseline."""
    foretold = foretold_apart(rows.of(*features), rows.ranks, rows.source, rows.persona, features)
    return skill_over_each(foretold, baselines_foretold(rows, rows.ranks), rows.ranks, rows.source, rows.persona)


def skill_over_each(
    foretold: Floats, bases: Mapping[str, Floats], ranks: Floats, source: Places, persona: Places
) -> dict[str, SkillNumbers]:
    """Skill of a forecast of ranks over each of `bases`, all [n]."""
    found = {name: skill_over(foretold, base, ranks, source, persona) for name, base in bases.items()}
    return {name: SkillNumbers(*map(finite, (one.value, one.low, one.high))) for name, one in found.items()}
