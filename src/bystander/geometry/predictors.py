"""The built-in predictors: the centered cosine and its baselines. If a baseline does as well, similarity is not what
carries leakage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from bystander.geometry.base import Floats, Need, Predictor, Seen
from bystander.geometry.measures import (
    distance_to_centroid,
    jensen_shannon_similarity,
    length_similarity,
    lexical_overlap,
    random_direction,
    whitened_cosine,
)
from bystander.geometry.similarity import centered_cosine, cosine

if TYPE_CHECKING:
    from torch import Tensor


class CenteredCosine(Predictor):
    """Cosine of centroids after the mean over personas is taken out."""

    needs: ClassVar[Need] = "prompt_states"
    label: ClassVar[str] = "cosine, centered"
    pairwise: ClassVar[bool] = True

    def similarities(self, seen: Seen, sources: Sequence[str]) -> Floats:
        """In [-1, 1]."""
        return centered_cosine(seen.states)[:, seen.places(sources)]


class RawCosine(Predictor):
    """Cosine of centroids as they are."""

    needs: ClassVar[Need] = "prompt_states"
    label: ClassVar[str] = "cosine, raw"
    pairwise: ClassVar[bool] = True

    def similarities(self, seen: Seen, sources: Sequence[str]) -> Floats:
        """In [-1, 1]."""
        return cosine(seen.states)[:, seen.places(sources)]


class WhitenedCosine(Predictor):
    """Cosine after ridge whitening over personas."""

    needs: ClassVar[Need] = "prompt_states"
    label: ClassVar[str] = "cosine, whitened"
    pairwise: ClassVar[bool] = True

    def similarities(self, seen: Seen, sources: Sequence[str]) -> Floats:
        """In [-1, 1]."""
        return whitened_cosine(seen.states)[:, seen.places(sources)]


class RandomDirection(Predictor):
    """What any direction predicts: the cosine to a random one that stands in for the source's."""

    needs: ClassVar[Need] = "prompt_states"
    label: ClassVar[str] = "random direction"

    def similarities(self, seen: Seen, sources: Sequence[str]) -> Floats:
        """In [-1, 1]; the direction is drawn from the source's place in the set."""
        return random_direction(seen.states, seen.places(sources))


class DistanceToCentroid(Predictor):
    """How far a persona stands from the mean of all, whoever the source is."""

    needs: ClassVar[Need] = "prompt_states"
    label: ClassVar[str] = "distance to centroid"

    def similarities(self, seen: Seen, sources: Sequence[str]) -> Floats:
        """In units of the mean distance; larger for farther from the mean, and so no similarity."""
        return np.repeat(distance_to_centroid(seen.states)[:, None], len(sources), axis=1)


class LexicalOverlap(Predictor):
    """Jaccard overlap of the words of the prompts."""

    needs: ClassVar[Need] = "prompts"
    label: ClassVar[str] = "lexical overlap"
    pairwise: ClassVar[bool] = True

    def similarities(self, seen: Seen, sources: Sequence[str]) -> Floats:
        """In [0, 1]."""
        return lexical_overlap(seen.contexts)[None, seen.places(sources)]


class PromptLength(Predictor):
    """How alike the prompts are in length."""

    needs: ClassVar[Need] = "prompts"
    label: ClassVar[str] = "prompt length"
    pairwise: ClassVar[bool] = True

    def similarities(self, seen: Seen, sources: Sequence[str]) -> Floats:
        """Minus the difference in tokens."""
        return length_similarity(seen.contexts, seen.prompt_tokens)[None, seen.places(sources)]


class JensenShannon(Predictor):
    """How alike the answer's first token is distributed over the open questions. The sources' distributions are held,
    and every other persona is compared with them as it comes."""

    needs: ClassVar[Need] = "first_token"
    label: ClassVar[str] = "Jensen-Shannon, next token"

    def __init__(self) -> None:
        self._sources: dict[str, Tensor] = {}
        self._values: dict[tuple[str, str], float] = {}

    def observe(self, name: str, logprobs: Tensor, is_source: bool) -> None:
        """Compare with the sources seen so far; a source is held too."""
        own = logprobs.double().exp()
        for source, distribution in self._sources.items():
            value = jensen_shannon_similarity(distribution, own)
            self._values[source, name] = value
            if is_source:
                self._values[name, source] = value
        if is_source:
            self._sources[name] = own
            self._values[name, name] = 1.0

    def similarities(self, seen: Seen, sources: Sequence[str]) -> Floats:
        """1 minus the divergence in bits: 1 for equal distributions, 0 for disjoint ones."""
        return np.array([[[self._values[source, name] for name in seen.names] for source in sources]])
