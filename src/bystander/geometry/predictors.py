"""Every predictor of leakage that a study looks at, as records: the centered cosine and its rivals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bystander.core.records import Context, Similarity
from bystander.geometry.rivals import (
    distance_to_centroid,
    jensen_shannon_similarity,
    length_similarity,
    lexical_overlap,
    random_direction,
    whitened_cosine,
)
from bystander.geometry.similarity import Floats, centered_cosine, cosine
from bystander.lm.hidden import PromptStates

NO_LAYER = -1  # `Similarity.layer` of a predictor that has none


def from_states(
    states: Floats, contexts: Sequence[Context], sources: Sequence[str], layers: Sequence[int]
) -> Iterator[Similarity]:
    """What centroids [personas, layers, hidden] say: `cosine` (centered), `cosine_raw`, `cosine_whitened`,
    `random_direction` and `distance_to_centroid`, for each source, persona and layer."""
    names = [context.name for context in contexts]
    places = [names.index(source) for source in sources]
    by_method = {
        "cosine": centered_cosine(states)[:, places],
        "cosine_raw": cosine(states)[:, places],
        "cosine_whitened": whitened_cosine(states)[:, places],
        "random_direction": random_direction(states, places),
        "distance_to_centroid": np.repeat(distance_to_centroid(states)[:, None], len(places), axis=1),
    }
    for method, values in by_method.items():  # [layers, sources, personas]
        for row, layer in enumerate(layers):
            for column, source in enumerate(sources):
                for name, value in zip(names, values[row, column], strict=True):
                    yield Similarity(source, name, method, layer, float(value))


def from_prompts(
    contexts: Sequence[Context], sources: Sequence[str], prompt_tokens: Mapping[str, int]
) -> Iterator[Similarity]:
    """What the prompts' texts say: `lexical_overlap` and `prompt_length`."""
    names = [context.name for context in contexts]
    matrices = {
        "lexical_overlap": lexical_overlap(contexts),
        "prompt_length": length_similarity(contexts, prompt_tokens),
    }
    for method, matrix in matrices.items():
        for source in sources:
            for name, value in zip(names, matrix[names.index(source)], strict=True):
                yield Similarity(source, name, method, NO_LAYER, float(value))


def from_answers(
    prompts: Iterable[PromptStates], sources: Sequence[str], into: dict[str, NDArray[np.float32]]
) -> Iterator[Similarity]:
    """`jensen_shannon`: how alike the first answer token is distributed over the open questions.

    `prompts` must bring the sources first: their distributions are kept and every other persona is held against them
    as it comes, so that memory does not grow with the number of personas. Centroids are put `into` by name.
    """
    kept: dict[str, Floats] = {}
    for prompt in prompts:
        name, logprobs = prompt.context.name, prompt.logprobs.astype(np.float64)
        into[name] = prompt.states
        if name in sources:
            for other, earlier in kept.items():
                value = jensen_shannon_similarity(earlier, logprobs)
                yield Similarity(other, name, "jensen_shannon", NO_LAYER, value)
                yield Similarity(name, other, "jensen_shannon", NO_LAYER, value)
            kept[name] = logprobs
            yield Similarity(name, name, "jensen_shannon", NO_LAYER, 1.0)
            continue
        assert len(kept) == len(sources), "sources must come first"
        for source, own in kept.items():
            yield Similarity(source, name, "jensen_shannon", NO_LAYER, jensen_shannon_similarity(own, logprobs))
