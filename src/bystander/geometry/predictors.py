"""Every predictor of leakage that a study looks at, as records: the centered cosine and its rivals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

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
from bystander.lm.hidden import next_token_logprobs
from bystander.lm.model import LoadedModel

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
    loaded: LoadedModel, contexts: Sequence[Context], sources: Sequence[str], users: Sequence[str]
) -> Iterator[Similarity]:
    """`jensen_shannon`: how alike the first answer token is distributed over the open questions.

    The sources' distributions are kept and every persona is held against them as it comes, so that memory does not
    grow with the number of personas.
    """
    by_name = {context.name: context for context in contexts}
    own = {c.name: p for c, p in next_token_logprobs(loaded, [by_name[source] for source in sources], users)}
    for context, logprobs in next_token_logprobs(loaded, contexts, users):
        for source in sources:
            value = jensen_shannon_similarity(own[source], logprobs)
            yield Similarity(source, context.name, "jensen_shannon", NO_LAYER, value)
