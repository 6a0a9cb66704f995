"""Simulated studies: 111 personas in 11 categories, 5 sources, questions shared by all, and a truth that is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from bystander.analysis.stats.means import Floats

SIZES = (15, 15, 11, 10, 10, 10, 10, 10, 10, 5, 5)  # categories of the 111 built-in personas
CATEGORY = np.repeat(np.arange(len(SIZES)), SIZES)
PERSONAS = len(CATEGORY)
NAMES = tuple(f"p{i:03d}" for i in range(PERSONAS))
LABELS = tuple(f"c{c:02d}" for c in CATEGORY)
SOURCES = 5
QUESTIONS = 586  # half of ARC-Challenge
OPEN_QUESTIONS = 24  # judged
MARKER_QUESTIONS = 8  # marker probe, as the quickstart asks


def held_out(source: int) -> NDArray[np.intp]:
    """Who is left for source number `source`: not itself, not its two negatives."""
    gone = {source * 20, (source * 20 + 7) % PERSONAS, (source * 20 + 13) % PERSONAS}
    return np.array([p for p in range(PERSONAS) if p not in gone])


@dataclass(frozen=True)
class WorldShape:
    """Parts of similarity and of true leakage, as standard deviations of normal effects.

    `correlation` is the correlation of the two persona x source parts; `common` of the two persona parts; `between` of the
    two category parts. Persona parts are the same for every source: who leaks more, leaks more from all of them.
    """

    correlation: float = 0.0
    own: tuple[float, float] = (1.0, 1.0)  # persona x source: similarity, leakage
    persona: tuple[float, float] = (0.0, 0.0)
    category: tuple[float, float] = (0.0, 0.0)
    common: float = 0.0
    between: float = 0.0


def truth(rng: np.random.Generator, shape: WorldShape, sources: int = SOURCES) -> tuple[Floats, Floats]:
    """Similarity and true leakage of one study -> ([sources, personas], [sources, personas])."""
    own = _pair(rng, (sources, PERSONAS), shape.correlation)
    persona = _pair(rng, (1, PERSONAS), shape.common)
    category = [part[:, CATEGORY] for part in _pair(rng, (sources, len(SIZES)), shape.between)]
    both = [shape.own[i] * own[i] + shape.persona[i] * persona[i] + shape.category[i] * category[i] for i in (0, 1)]
    return both[0], both[1]


def _pair(rng: np.random.Generator, size: tuple[int, int], correlation: float) -> tuple[Floats, Floats]:
    first, second = rng.standard_normal((2, *size))
    return first, correlation * first + (1 - correlation**2) ** 0.5 * second


def measured(
    rng: np.random.Generator, leakage: Floats, questions: int, reliability: float, slope: Floats | None = None
) -> Floats:
    """Changes on shared questions [personas, questions], whose means over questions are leakage plus error.

    A question moves everybody alike by a normal effect as large as the error of one answer; `slope` [personas] is what
    some questions bring out more than others (a standard normal times it, question by question). `reliability` is the
    share of the variance of measured leakage that is true, without the slope's part.
    """
    error = (leakage.var() * (1 / reliability - 1) * questions) ** 0.5
    changes = rng.standard_normal((leakage.size, questions)) * error
    changes += leakage[:, None] + rng.standard_normal(questions) * error
    if slope is not None:
        changes += slope[:, None] * rng.standard_normal(questions)
    return changes


def answers(
    rng: np.random.Generator, before: Floats, after: Floats, questions: int, hardness: float = 0.8
) -> tuple[Floats, Floats, Floats]:
    """0/1 answers before and after on shared questions, and each persona's true change -> ([personas, questions] twice,
    [personas]). `before`, `after`: logits of a right answer to a middling question, per persona."""
    hard = rng.normal(0, hardness, questions)
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    true = [_rate(logit[:, None] - hardness * nodes) @ weights / weights.sum() for logit in (before, after)]
    drawn = [
        (rng.random((before.size, questions)) < _rate(logit[:, None] - hard)).astype(float) for logit in (before, after)
    ]
    return drawn[0], drawn[1], true[1] - true[0]


def _rate(logit: Floats) -> Floats:
    return 1 / (1 + np.exp(-logit))


def spearman_of_normals(pearson: float) -> float:
    """Population Spearman of a bivariate normal: 6/pi asin(r/2)."""
    return float(6 / np.pi * np.arcsin(pearson / 2))


def pearson_for(spearman: float) -> float:
    """The Pearson correlation of a bivariate normal with that Spearman correlation."""
    return float(2 * np.sin(np.pi * spearman / 6))


def population_rho(x: Floats, y: Floats) -> float:
    """Spearman of a population large enough to be the truth."""
    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])
