"""Forecasts of leakage by a predictor that foretells nothing, and by one that does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from bystander.analysis.leakage_fit import LEVEL, Stacked, baselines_foretold
from bystander.analysis.stats.conformal import covered, half_width
from bystander.analysis.stats.forecast_skill import foretold_apart, ranks_within, skill_over
from bystander.analysis.stats.leakage_model import Floats, fit, left_out, standardized
from bystander.analysis.stats.skill import Skill
from calibration.rows import CalibrationLine, bias

WORLDS = ((0.0, 0.0), (0.6, 0.0), (0.6, 0.7))
SOURCES, PERSONAS = 5, 60  # fitted on, and one more that is foretold
HOLDS = 0.96  # five sources that are alike: a sixth of the weight is at infinity, so that 0.8 x 6 / 5 of theirs must be held
OFTEN = 0.05  # of forecasts that are nothing may be called skill


def forecasts(studies: int, seed: int = 51) -> Iterator[CalibrationLine]:
    """A random predictor must have no skill and intervals as wide as no knowledge, whether or not personas take up
    anything from every source; a predictor of rho 0.4 is to be seen, and its intervals are to hold."""
    for persona, slope in WORLDS:
        yield from forecasts_in(persona, slope, studies, seed)


def forecasts_in(persona: float, slope: float, studies: int, seed: int = 51) -> Iterator[CalibrationLine]:
    """One of the worlds: personas' leaning to leak from every source, and the weight of the predictor."""
    found = [study_of(persona, slope, number, seed) for number in range(studies)]
    yield from lines_of(persona, slope, found)


Outcome = tuple[dict[str, Skill], float, float]


def study_of(persona: float, slope: float, number: int, seed: int = 51) -> Outcome:
    """One simulated study of a world; its number decides it."""
    rng = np.random.default_rng([seed, int(10 * persona), int(10 * slope), number])
    return _study(_world(rng, persona, slope))


def lines_of(persona: float, slope: float, found: Sequence[Outcome]) -> Iterator[CalibrationLine]:
    """The lines of one world from its studies."""
    studies = len(found)
    world = f"predictor of weight {slope:g}" if slope else "random predictor"
    world += ", personas alike over sources" if persona else ""
    called = float(np.mean([all(one.low > 0 for one in skills.values()) for skills, _, _ in found]))
    high, kind = (1.0, "power") if slope else (OFTEN, "level")
    # A predictor of rho 0.4 was to be seen in four studies of five; it is not, so nothing is promised of it.
    low = 0.8 if slope else 0.0
    yield CalibrationLine(kind, "forecast called skill", world, studies, called, low, high, offered=not slope)
    if not slope:
        yield bias("forecast's skill over no knowledge", world, [one["no_knowledge"].value for one, _, _ in found], 0.0)
        yield bias("forecast's interval, width over no knowledge's", world, [wide for _, wide, _ in found], 1.0)
    held = float(np.mean([share for _, _, share in found]))
    yield CalibrationLine(
        "coverage", "80 % interval of an unseen source's bystanders", world, studies, held, 0.77, HOLDS
    )


def _world(rng: np.random.Generator, persona: float, slope: float) -> Stacked:
    """Six sources with levels and slopes of their own; the last is foretold."""
    sources = SOURCES + 1
    drawn = rng.standard_normal((sources, PERSONAS))
    own = slope + 0.1 * rng.standard_normal(sources) * bool(slope)
    leaning, level = persona * rng.standard_normal(PERSONAS), 0.7 * rng.standard_normal(sources)
    values = (level[:, None] + leaning + own[:, None] * drawn + rng.standard_normal(drawn.shape)).ravel()
    names = ("base_prior", "predictor", "prompt_tokens")
    known = rng.standard_normal((2, PERSONAS))  # of the persona, whoever the source is
    x = [np.column_stack([known[0], one, known[1]]) for one in drawn]
    source = np.repeat(np.arange(sources), PERSONAS)
    return Stacked(
        names, np.concatenate([standardized(one) for one in x]), values, ranks_within(values, source), source,
        np.tile(np.arange(PERSONAS), sources), tuple(map(str, range(PERSONAS))),
    )  # fmt: skip


def _study(world: Stacked) -> Outcome:
    """(skill of ranks over each baseline, width over that without predictors, share of the unseen source in its
    interval) of a fit on the first sources."""
    seen = world.source < SOURCES
    rows = Stacked(
        world.features, world.x[seen], world.values[seen], world.ranks[seen], world.source[seen], world.persona[seen],
        world.personas,
    )  # fmt: skip
    foretold = foretold_apart(rows.of("predictor"), rows.ranks, rows.source, rows.persona, ["predictor"])
    skills = {
        name: skill_over(foretold, base, rows.ranks, rows.source, rows.persona)
        for name, base in baselines_foretold(rows, rows.ranks).items()
    }
    half, blind = (_half(rows, rows.of(*names), names) for names in (("predictor",), ()))
    model = fit(rows.of("predictor"), rows.values, rows.source, ["predictor"])
    off = world.values[~seen] - model.foretell(world.of("predictor")[~seen])
    return skills, half / blind, covered(off, half)


def _half(rows: Stacked, x: Floats, names: tuple[str, ...]) -> float:
    off = rows.values - left_out(x, rows.values, rows.source, names)
    return half_width([off[rows.source == one] for one in range(SOURCES)], LEVEL)
