"""Predictors that look at answers and at what is to be trained, not at prompts alone. Each costs passes of its own, and so
is computed where a study names it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from bystander.geometry.base import Floats, Need, Predictor, Seen
from bystander.geometry.similarity import centered_cosine, cosine


class AnswerCosine(Predictor):
    """Cosine of centroids over the model's own answers, centered (persona vectors: Chen et al. 2025, arXiv 2507.21509)."""

    needs: ClassVar[Need] = "answer_states"
    label: ClassVar[str] = "cosine over answers, centered"
    pairwise: ClassVar[bool] = True
    by_default: ClassVar[bool] = False

    def similarities(self, seen: Seen, sources: Sequence[str]) -> Floats:
        """In [-1, 1]."""
        return centered_cosine(seen.answer_states)[:, seen.places(sources)]


class Projection(Predictor):
    """How far a persona stands, from the mean of all, along the direction from benign to shown answers of this training
    set (the projection difference of Chen et al. 2025, arXiv 2507.21509, section 6, read at the prompt's end)."""

    needs: ClassVar[Need] = "training_direction"
    label: ClassVar[str] = "projection on the training set"
    by_default: ClassVar[bool] = False

    def similarities(self, seen: Seen, sources: Sequence[str]) -> Floats:
        """In units of the mean distance of personas from their centroid."""
        centered = seen.states - seen.states.mean(axis=0, keepdims=True)
        unit = np.linalg.norm(centered, axis=-1).mean(axis=0)  # [layers]
        found: list[Floats] = []
        for source in sources:
            direction = seen.directions[source]
            length = np.linalg.norm(direction, axis=-1) * unit
            found.append(np.einsum("plh,lh->lp", centered, direction) / np.where(length > 0, length, 1.0)[:, None])
        return np.stack(found, axis=1)


class AnswerDivergence(Predictor):
    """Jensen-Shannon divergence of whole answers, estimated from one answer to each question of either persona."""

    needs: ClassVar[Need] = "answer_logprobs"
    label: ClassVar[str] = "Jensen-Shannon, whole answers"
    by_default: ClassVar[bool] = False

    def similarities(self, seen: Seen, sources: Sequence[str]) -> Floats:
        """1 minus the divergence in bits. An unbiased estimate: single values may leave [0, 1] by noise."""
        values = [[1 - self._divergence(seen, source, name) for name in seen.names] for source in sources]
        return np.array([values])

    @staticmethod
    def _divergence(seen: Seen, one: str, other: str) -> float:
        """Mean over answers y of P of log2 P(y) / ((P(y) + Q(y)) / 2), and the same of Q; half of both."""
        halves: list[float] = []
        for own, its in ((one, other), (other, one)):
            gain = seen.answer_logprobs[own, own] - seen.answer_logprobs[its, own]
            halves.append(float(np.mean(1 - np.logaddexp(0.0, -gain) / np.log(2))))
        return sum(halves) / 2


class GradientCosine(Predictor):
    """Cosine of the training loss' gradients under persona and source, before training (Xia et al. 2024, arXiv
    2402.04333, for training sets; here for contexts)."""

    needs: ClassVar[Need] = "training_gradients"
    label: ClassVar[str] = "cosine of training gradients"
    pairwise: ClassVar[bool] = True
    by_default: ClassVar[bool] = False

    def similarities(self, seen: Seen, sources: Sequence[str]) -> Floats:
        """In [-1, 1]."""
        return cosine(seen.gradients[:, None].astype(np.float64))[:, seen.places(sources)]
