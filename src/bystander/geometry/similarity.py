"""Similarity of every persona to a source, from centroids of hidden states.

A persona's centroid at a layer is the mean, over open questions, of the hidden state at the last prompt token: the
place from which the first token of the answer is predicted.
"""

from __future__ import annotations

import numpy as np

from bystander.geometry.base import Floats


def centered_cosine(states: Floats) -> Floats:
    """Cosine between centroids after the mean over personas is taken out.

    `states` [personas, layers, hidden] -> [layers, personas, personas]. Without centering all personas stand at a
    cosine near 1, since what they share (the template, the language) dwarfs what tells them apart.
    """
    return cosine(states - states.mean(axis=0, keepdims=True))


def cosine(states: Floats) -> Floats:
    """Plain cosine between centroids: [personas, layers, hidden] -> [layers, personas, personas]."""
    length = np.linalg.norm(states, axis=-1, keepdims=True)
    unit = states / np.where(length > 0, length, 1.0)
    return np.einsum("alh,blh->lab", unit, unit)


def spread_over_ranking(similarity: dict[str, float], source: str, count: int) -> list[str]:
    """The source and `count - 1` other personas spread evenly over the ranking by similarity, most alike first.

    Ties are broken by name, so that the choice is the same on every machine.
    """
    ranked = sorted((name for name in similarity if name != source), key=lambda name: (-similarity[name], name))
    others = min(count - 1, len(ranked))
    if others <= 0:
        return [source]
    places = np.linspace(0, len(ranked) - 1, others).round().astype(int)
    return [source, *(ranked[int(i)] for i in dict.fromkeys(places.tolist()))]
