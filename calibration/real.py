"""Worlds made of what real models gave: baselines of 111 personas, where their centroids lie, how alike they answer."""

from __future__ import annotations

import csv
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

Floats = NDArray[np.float64]
DATA = Path(__file__).parent / "data"
SOURCES = ("assistant", "comedian", "kindergarten_teacher", "software_engineer", "villain")
LAYERS = (5, 10, 15, 20, 25)
SHARED = 0.93  # of the latent variance of an answer is the question's: two personas' 0/1 answers correlate by 0.76 then
KEPT = 0.7  # correlation of a persona's own part of a question before and after training


@lru_cache(maxsize=1)
def _personas() -> list[dict[str, str]]:
    with (DATA / "personas.csv").open() as handle:
        return list(csv.DictReader(handle))


def names() -> tuple[str, ...]:
    """The 111 personas in the order of all arrays here."""
    return tuple(row["persona"] for row in _personas())


def baselines() -> Floats:
    """[personas] accuracy of the untrained Qwen2.5-Coder-1.5B-Instruct on 586 ARC letters, measurement error taken out:
    deviations from the mean shrunk by the root of the reliability, 0.90."""
    rate = np.array([float(row["accuracy"]) for row in _personas()])
    return rate.mean() + 0.898**0.5 * (rate - rate.mean())


def similarity_to(source: str) -> Floats:
    """[personas] centered cosine to that source at layer 20 of the same model."""
    return np.array([float(row[source]) for row in _personas()])


@lru_cache(maxsize=1)
def _centroids() -> Floats:
    with (DATA / "centroids.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    place = {name: index for index, name in enumerate(names())}
    found = np.full((len(LAYERS), len(place), 12), np.nan)
    for row in rows:
        found[LAYERS.index(int(row["layer"])), place[row["persona"]]] = [float(row[f"c{i + 1}"]) for i in range(12)]
    return found


def centroids(layer: int) -> Floats:
    """[personas, 12] scores of the embedded model's centroids at that layer, centered, on their principal components."""
    return _centroids()[LAYERS.index(layer)]


def cosines(layer: int) -> Floats:
    """[personas, personas] centered cosines at that layer."""
    scores = centroids(layer)
    scores = scores - scores.mean(axis=0)
    unit = scores / np.linalg.norm(scores, axis=1, keepdims=True)
    return unit @ unit.T


def bystanders(source: int, personas: int = 111) -> NDArray[np.bool_]:
    """Everybody but the source and two negatives, which are trained not to show the behavior."""
    held_out = np.ones(personas, dtype=bool)
    held_out[[source, (source + 37) % personas, (source + 74) % personas]] = False
    return held_out


def smooth_leakage(rng: np.random.Generator, layer: int, reliability: float = 0.8) -> Floats:
    """[personas] leakage that is a smooth function of the centroids along a random axis, with error."""
    scores = centroids(layer)
    along = scores @ rng.standard_normal(scores.shape[1])
    smooth = np.tanh(along / along.std())
    return smooth + rng.standard_normal(along.size) * smooth.std() * (1 / reliability - 1) ** 0.5


class Answers:
    """0/1 answers of personas to shared questions, in several states of the model.

    An answer is right where a latent normal lies below the quantile of the persona's rate in that state. Its parts are the
    question (shared by all personas, and by trainings on the same rows), the persona's own part of the question, and what
    is of one state alone.
    """

    def __init__(self, rng: np.random.Generator, personas: int, questions: int) -> None:
        self.rng = rng
        self.question = rng.standard_normal(questions)
        self.own = rng.standard_normal((personas, questions), dtype=np.float32)
        self.drift = 0.8 * self.question + 0.6 * rng.standard_normal(questions)  # what training does to questions

    def untrained(self, rate: Floats) -> Floats:
        """[personas, questions] answers at these rates [personas] before any training."""
        return self._drawn(rate, self.question, self.own)

    def trained(self, rate: Floats) -> Floats:
        """The same after a training; every call is a training of its own on the same rows."""
        new = self.rng.standard_normal(self.own.shape, dtype=np.float32)
        return self._drawn(rate, self.drift, KEPT * self.own + (1 - KEPT**2) ** 0.5 * new)

    @staticmethod
    def _drawn(rate: Floats, question: Floats, own: NDArray[np.float32]) -> Floats:
        latent = SHARED**0.5 * question + (1 - SHARED) ** 0.5 * own
        return (latent < norm.ppf(rate)[:, None]).astype(float)
