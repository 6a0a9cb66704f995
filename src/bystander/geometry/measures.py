"""The measures behind the baseline predictors."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bystander.core.hashing import generator
from bystander.core.records import Context
from bystander.geometry.base import Floats
from bystander.geometry.similarity import cosine

if TYPE_CHECKING:
    from torch import Tensor


def whitened_cosine(states: Floats) -> Floats:
    """Cosine after centering and ridge whitening over personas: [personas, layers, hidden] -> [layers, personas, personas].

    A few directions of huge variance dominate the plain cosine (Mu and Viswanath 2018, arXiv 1702.01417). Full whitening
    with fewer personas than dimensions would make all pairs equally unlike, so each singular value s is divided by
    sqrt(s**2 + median(s**2)): directions above the median variance are flattened, those below keep their order.
    """
    centered = states - states.mean(axis=0, keepdims=True)
    layers: list[Floats] = []
    for layer in range(states.shape[1]):
        left, singular, _ = np.linalg.svd(centered[:, layer], full_matrices=False)
        ridge = np.sqrt(singular**2 + np.median(singular**2))
        scores = left * np.where(ridge > 0, singular / np.where(ridge > 0, ridge, 1.0), 0.0)
        layers.append(cosine(scores[:, None])[0])
    return np.stack(layers)


def random_direction(states: Floats, sources: Sequence[int]) -> Floats:
    """The null: cosine of each centered centroid to a random direction that stands in for the source's.

    [personas, layers, hidden] -> [layers, len(sources), personas]. What it predicts is what any direction would.
    """
    centered = states - states.mean(axis=0, keepdims=True)
    unit = centered / np.maximum(np.linalg.norm(centered, axis=-1, keepdims=True), 1e-30)
    drawn = [generator("random direction", source).standard_normal(states.shape[1:]) for source in sources]
    directions = np.stack(drawn)
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    return np.einsum("slh,plh->lsp", directions, unit)


def distance_to_centroid(states: Floats) -> Floats:
    """Euclidean distance of each persona's centroid to the mean over personas, in units of the mean such distance:
    [personas, layers, hidden] -> [layers, personas]."""
    distance = np.linalg.norm(states - states.mean(axis=0, keepdims=True), axis=-1).T
    return distance / np.maximum(distance.mean(axis=1, keepdims=True), 1e-30)


def jensen_shannon_similarity(source: Tensor, other: Tensor) -> float:
    """1 - Jensen-Shannon divergence in bits, averaged over questions (Lin 1991): 1 for equal distributions, 0 for disjoint.

    Both float64 [questions, vocabulary] probabilities of the first answer token, on one device: 24 questions over
    150,000 words take numpy a third of a second a pair, and there are 555 pairs in a study of five sources.
    """
    import torch  # here: plans read the predictors and do without it

    entropy = torch.special.entr  # -p ln p; the divergence is the mixture's entropy less the mean of the two
    own = (entropy(source).sum(-1) + entropy(other).sum(-1)) / 2
    divergence = entropy((source + other) / 2).sum(-1) - own
    return 1 - divergence.mean().item() / math.log(2)


def lexical_overlap(contexts: Sequence[Context]) -> Floats:
    """Jaccard overlap of the word sets of the prompts: [personas, personas]."""
    words = [set(re.findall(r"\w+", (context.system or "").lower())) for context in contexts]
    return np.array([[len(a & b) / max(1, len(a | b)) for b in words] for a in words])


def length_similarity(contexts: Sequence[Context], tokens: Mapping[str, int]) -> Floats:
    """Minus the difference of the prompts' lengths in tokens: [personas, personas]."""
    lengths = np.array([tokens[context.name] for context in contexts], dtype=float)
    return -np.abs(lengths[:, None] - lengths[None, :])
