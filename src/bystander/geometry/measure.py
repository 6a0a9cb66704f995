"""Similarities of all personas to all sources by every predictor, from one pass over the contexts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bystander.core.records import Row, Similarity
from bystander.geometry.base import OF_LAYERS, Need, Predictor, Seen
from bystander.lm.hidden import AnswerStates, PromptStates

NO_LAYER = -1  # `Similarity.layer` of a predictor that has none


@dataclass(frozen=True, slots=True)
class Predictors:
    """Predictors by name, in the order in which their similarities are written."""

    by_name: Mapping[str, Predictor]

    def see(
        self, prompts: Iterable[PromptStates], order: Sequence[str], sources: Sequence[str], layers: Sequence[int],
        prompt_tokens: Mapping[str, int], rows: Mapping[str, Sequence[Row]], answers: Iterable[AnswerStates] = (),
    ) -> Seen:  # fmt: skip
        """What the predictors see of a model. `prompts` brings every persona once, the sources first, and so do
        `answers` where a predictor needs them; `order` is the personas' order in the set."""
        found: dict[str, PromptStates] = {}
        streaming = [one for one in self.by_name.values() if one.needs == "first_token"]
        for prompt in prompts:
            name = prompt.context.name
            for predictor in streaming:
                predictor.observe(name, prompt.logprobs, name in sources)
            found[name] = replace(prompt, logprobs=prompt.logprobs[:0])  # a vocabulary wide: not to be kept
        states = np.stack([found[name].states for name in order]).astype(np.float64)
        contexts = tuple(found[name].context for name in order)
        said = {one.context.name: one.states for one in answers} if self.need("answer_states") else {}
        over = {"answer_states": np.stack([said[name] for name in order]).astype(np.float64)} if said else {}
        return Seen(contexts, tuple(layers), states, prompt_tokens, rows, **over)

    def need(self, what: Need) -> bool:
        """Whether one of the predictors reads it."""
        return any(one.needs == what for one in self.by_name.values())

    def similarities(self, seen: Seen, sources: Sequence[str]) -> Iterator[Similarity]:
        """Every predictor's similarities, by layer, source and persona."""
        for method, predictor in self.by_name.items():
            yield from similarities_of(method, predictor, seen, sources)


def similarities_of(method: str, predictor: Predictor, seen: Seen, sources: Sequence[str]) -> Iterator[Similarity]:
    """One predictor's similarities as records."""
    values = predictor.similarities(seen, sources)
    layers = seen.layers if predictor.needs in OF_LAYERS and values.shape[0] == len(seen.layers) else (NO_LAYER,)
    assert values.shape == (len(layers), len(sources), len(seen.contexts)), f"{method}: {values.shape}"
    for of_layer, layer in zip(values, layers, strict=True):
        for of_source, source in zip(of_layer, sources, strict=True):
            for value, name in zip(of_source, seen.names, strict=True):
                yield Similarity(source, name, method, layer, float(value))
