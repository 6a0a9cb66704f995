"""A forecast of leakage from a fit, made before training; and its score, once the study was run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bystander.analysis.leakage_fit import (
    BASELINES,
    FEATURE_OF,
    Baseline,
    LeakageFit,
    SkillNumbers,
    finite,
    skill_over_each,
)
from bystander.analysis.leakage_sources import SourceContexts, off_scale, on_scale
from bystander.analysis.stats.forecast_skill import ranks_within
from bystander.analysis.stats.leakage_model import LeakageModel
from bystander.analysis.stats.ranks import spearman
from bystander.core.columns import CellValue
from bystander.core.errors import StoreError

Floats = NDArray[np.float64]
DECLARED = "declared"  # the feature of a prior: the study's own predictor at its own layer
# Of a prior, which nothing was fitted for: as much leakage as doubles the odds for each standard deviation of similarity.
# It orders contexts and says nothing of how much.
PRIOR_WEIGHT, PRIOR_RANK = 0.69, 0.2
ROUNDING = 1e-9  # a leakage at the very end of its interval is in it
NO_FIT = "no study of this behavior was fitted: contexts are ordered by the declared similarity alone, and how much leaks is open"


@dataclass(frozen=True, slots=True)
class ContextForecast:
    """One context under one source. `context` is its kind, `name` the persona's or the context's; `role` in the training.

    `expected`, `low`, `high`: leakage in the metric's unit, None where it has no end; `rank` where it will stand among the
    bystanders, from -1 (least) to 1. The three baselines' ranks are frozen with it. `before`: the untrained model."""

    behavior: str
    outcome: str
    source: str
    context: str
    name: str
    role: str
    before: float
    expected: float | None
    low: float | None
    high: float | None
    rank: float
    persona_mean: float
    prompt_length: float
    base_prior: float

    def of(self, behavior: str, source: str, group: str) -> bool:
        """Whether it is one of that source's held-out personas ("bystanders"), or of its contexts "beside" them."""
        mine = (self.behavior, self.source, self.role) == (behavior, source, "held-out")
        return mine and (self.context == "persona") == (group == "bystanders")


@dataclass(frozen=True, slots=True)
class FittedOn:
    """What a behavior's forecast rests on."""

    behavior: str
    outcome: str
    made_of: tuple[str, ...]
    features: tuple[str, ...]
    unknown: tuple[str, ...]  # features of the fit that this study does not have: taken as the mean
    skill: Mapping[str, SkillNumbers]
    has_skill: bool
    note: str


@dataclass(frozen=True)
class Forecast:
    """`level` of the intervals; `fits` and `rows` of every behavior and source."""

    level: float
    fits: tuple[FittedOn, ...]
    rows: tuple[ContextForecast, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Forecast:
        """What `to_dict` gave. Raises StoreError for anything else."""
        try:
            fits = tuple(_fitted_of(one) for one in given["fits"])
            rows = tuple(ContextForecast(**row) for row in given["rows"])
            return cls(float(given["level"]), fits, rows, tuple(given["notes"]))
        except (KeyError, TypeError) as error:
            raise StoreError(f"not a forecast of leakage ({error}); make it anew with `bystander predict`") from error


def _fitted_of(given: Mapping[str, Any]) -> FittedOn:
    found: dict[str, Any] = dict(given)
    for key in ("made_of", "features", "unknown"):
        found[key] = tuple(given[key])
    found["skill"] = {name: SkillNumbers(**skill) for name, skill in given["skill"].items()}
    return FittedOn(**found)


@dataclass(frozen=True, slots=True)
class Asked:
    """For whom a forecast is made: `contexts` without `after`; kind, role and standing of each. `bystander` [contexts]:
    held-out personas, over which features are standardized."""

    contexts: SourceContexts
    kinds: tuple[str, ...]
    roles: tuple[str, ...]
    declared: str  # name of the declared predictor

    @property
    def bystander(self) -> NDArray[np.bool_]:
        """Held-out personas."""
        return np.array([k == "persona" and r == "held-out" for k, r in zip(self.kinds, self.roles, strict=True)])


def prior_fit(behavior: str, contexts: SourceContexts) -> LeakageFit:
    """What stands in where nothing was fitted; it says so."""
    model = LeakageModel((DECLARED,), 0.0, (PRIOR_WEIGHT,), 0.0, 0.0, 1.0, NO_FIT)
    ranks = replace(model, weights=(PRIOR_RANK,))
    return LeakageFit(behavior, contexts.outcome, contexts.scale, (), (DECLARED,), model, ranks, None, prior=True)


def forecast_source(found: LeakageFit, asked: Asked) -> list[ContextForecast]:
    """The contexts of one source. A context beside the personas stands no farther out than the farthest bystander in any
    feature: beyond them nothing was fitted."""
    of = asked.contexts
    columns = {
        name: _standing(_feature(name, asked), asked.bystander) for name in (*found.features, *FEATURE_OF.values())
    }
    x = np.column_stack([columns[name] for name in found.features])
    values, ranks = found.values.foretell(x), np.clip(found.ranks.foretell(x), -1, 1)
    half = np.inf if found.half_width is None else found.half_width
    before = on_scale(of.reference, of.scale)
    expected, low, high = (_leakage(values + end, before, of) for end in (0.0, -half, half))
    rivals = _rivals(found, columns, of.names)
    return [
        ContextForecast(
            of.behavior, of.outcome, of.source, kind, name, role, float(of.reference[i]),
            None if found.prior else finite(expected[i]), finite(low[i]), finite(high[i]), float(ranks[i]),
            *(float(rivals[baseline][i]) for baseline in BASELINES),
        )
        for i, (kind, name, role) in enumerate(zip(asked.kinds, of.names, asked.roles, strict=True))
    ]  # fmt: skip


def _leakage(change: Floats, before: Floats, of: SourceContexts) -> Floats:
    """A change on the scale as leakage in the metric's unit."""
    return of.direction * (off_scale(before + of.direction * change, of.scale) - off_scale(before, of.scale))


def _feature(name: str, asked: Asked) -> Floats | None:
    return asked.contexts.features.get(asked.declared if name == DECLARED else name)


def _standing(values: Floats | None, bystander: NDArray[np.bool_]) -> Floats:
    """Standardized over the bystanders, none beyond them; 0 throughout where it is not known or does not vary."""
    if values is None:
        return np.zeros(len(bystander))
    own = values[bystander]
    if not len(own) or own.std() <= 1e-12:
        return np.zeros(len(values))
    known = np.where(np.isfinite(values), values, own.mean())
    return (np.clip(known, own.min(), own.max()) - own.mean()) / own.std()


def _rivals(found: LeakageFit, columns: Mapping[str, Floats], names: Sequence[str]) -> dict[Baseline, Floats]:
    """Ranks by each baseline; a persona that no fitted source has is foretold nothing by its mean."""
    means = np.array([found.persona_means.get(name, 0.0) for name in names])
    known: dict[Baseline, Floats] = {"persona_mean": means}
    for one, name in FEATURE_OF.items():
        known[one] = columns[name]
    return {
        name: found.baselines[name].foretell(values[:, None]) if name in found.baselines else np.zeros(len(names))
        for name, values in known.items()
    }


def fitted_on(found: LeakageFit, of: SourceContexts, declared: str) -> FittedOn:
    """What the forecast for `of` says of its fit."""
    unknown = tuple(name for name in found.features if name not in of.features and name != DECLARED)
    features = tuple(declared if name == DECLARED else name for name in found.features)
    other = f"fitted on {found.outcome}, another metric on the same scale" if found.outcome != of.outcome else ""
    note = "; ".join(dict.fromkeys(filter(None, (other, found.values.note, found.ranks.note))))
    return FittedOn(of.behavior, of.outcome, found.made_of, features, unknown, dict(found.skill), found.has_skill, note)


@dataclass(frozen=True, slots=True)
class ForecastScore:
    """How one source's forecast came out. `group`: "bystanders" (held-out personas) or "beside" (contexts without a
    persona that were not trained on). `covered`: share whose leakage lay in its interval; `rho` of foretold and observed
    order; `skill` of ranks over each baseline and over no knowledge."""

    behavior: str
    outcome: str
    source: str
    group: str
    against: str
    n: int
    level: float
    covered: float | None
    rho: float | None
    skill: Mapping[str, SkillNumbers]

    @property
    def record(self) -> str:
        """Its record id."""
        return f"inputs/forecast/{self.behavior}/{self.source}/{self.group}"

    def cells(self) -> dict[str, CellValue]:
        """Its numbers as plain cells."""
        found: dict[str, CellValue] = {
            "behavior": self.behavior, "source": self.source, "group": self.group, "against": self.against, "n": self.n,
            "level": self.level, "covered": self.covered, "rho": self.rho, "verdict": self.verdict,
        }  # fmt: skip
        for name, one in self.skill.items():
            found |= {name: one.value, f"{name}_low": one.low, f"{name}_high": one.high}
        return found

    @property
    def verdict(self) -> str:
        """In a word: of ranks, whether all baselines were beaten."""
        if not self.skill or any(one.value is None for one in self.skill.values()):
            return "not told"
        return "skill" if all(one.beats for one in self.skill.values()) else "none"


def score_source(rows: Sequence[ContextForecast], observed: SourceContexts, group: str, level: float) -> ForecastScore:
    """The score of one source's rows; `observed` has the same contexts, in any order, and more of them or fewer."""
    place = {name: index for index, name in enumerate(observed.names)}
    chosen = [row for row in rows if row.name in place]
    at = [place[row.name] for row in chosen]
    before = on_scale(np.array([row.before for row in chosen]), observed.scale)
    seen = _leakage(observed.leakage[at], before, observed)
    low = np.array([-np.inf if row.low is None else row.low for row in chosen])
    high = np.array([np.inf if row.high is None else row.high for row in chosen])
    inside = (seen >= low - ROUNDING) & (seen <= high + ROUNDING)
    several = group == "bystanders"
    return ForecastScore(
        observed.behavior, observed.outcome, observed.source, group, observed.against, len(at), level,
        float(inside.mean()) if at else None, _rho(chosen, observed.change[at]) if several else None,
        _skill(chosen, observed.change[at]) if several else {},
    )  # fmt: skip


def _rho(rows: Sequence[ContextForecast], leakage: Floats) -> float | None:
    foretold = np.array([row.rank for row in rows])
    if len(rows) < 4 or np.ptp(foretold) == 0 or np.ptp(leakage) == 0:
        return None
    return finite(spearman(foretold[None], leakage)[0])


def _skill(rows: Sequence[ContextForecast], leakage: Floats) -> dict[str, SkillNumbers]:
    one, each = np.zeros(len(rows), dtype=np.int64), np.arange(len(rows))
    if len(rows) == 0:
        return {}
    ranks = ranks_within(leakage, one)
    foretold = np.array([row.rank for row in rows])
    bases: dict[str, Floats] = {"no_knowledge": np.zeros(len(rows))}
    bases |= {name: np.array([float(getattr(row, name)) for row in rows]) for name in BASELINES}
    return skill_over_each(foretold, bases, ranks, one, each)
