"""Similarities of all personas to all sources by every predictor, from the passes that some predictor needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bystander.core.records import Context, Earlier, Row, Similarity
from bystander.geometry.base import OF_ANSWERS, OF_LAYERS, Floats, Predictor, Predictors, Seen, Turn
from bystander.lm.hidden import AnswerStates, answer_states, last_token_states, states_over
from bystander.lm.loaded import LoadedModel
from bystander.lm.score import ScoreItem, score_each
from bystander.train.gradients import context_gradients

NO_LAYER = -1  # `Similarity.layer` of a predictor that has none


@dataclass(frozen=True)
class Geometry:
    """What is asked of a model. `contexts`: the personas, in the order of the set; `turns`: some of what is trained;
    `answer_tokens`: at most so many in a sampled answer."""

    contexts: Sequence[Context]
    sources: Sequence[str]
    questions: Sequence[str]
    layers: Sequence[int]
    prompt_tokens: Mapping[str, int]
    rows: Mapping[str, Sequence[Row]]
    turns: Sequence[Turn] = ()
    answer_tokens: int = 64


def see(predictors: Predictors, loaded: LoadedModel, asked: Geometry, advance: Callable[[], None]) -> Seen:
    """What the predictors see of a model. `advance` is called once for every persona in each of their `passes`."""
    first = [c for c in asked.contexts if c.name in asked.sources]
    first += [c for c in asked.contexts if c.name not in asked.sources]
    states: dict[str, Floats] = {}
    for prompt in last_token_states(loaded, first, asked.questions, asked.layers):
        predictors.observe(prompt.context.name, prompt.logprobs, prompt.context.name in asked.sources)
        states[prompt.context.name] = prompt.states.astype(np.float64)
        advance()
    answers: dict[str, AnswerStates] = {}
    if predictors.need(*OF_ANSWERS):
        for one in answer_states(loaded, asked.contexts, asked.questions, asked.layers, max_tokens=asked.answer_tokens):
            answers[one.context.name] = one
            advance()
    more: dict[str, Any] = {}
    if predictors.need("answer_states"):
        more["answer_states"] = np.stack([one.states for one in answers.values()]).astype(np.float64)
    if predictors.need("answer_logprobs"):
        more["answer_logprobs"] = _answer_logprobs(loaded, asked, answers, advance)
    if predictors.need("training_direction"):
        more["directions"] = _directions(loaded, asked)
    if predictors.need("training_gradients"):
        more["gradients"] = _gradients(loaded, asked, advance)
    centroids = np.stack([states[context.name] for context in asked.contexts])
    return Seen(tuple(asked.contexts), tuple(asked.layers), centroids, asked.prompt_tokens, asked.rows, **more)


def _gradients(loaded: LoadedModel, asked: Geometry, advance: Callable[[], None]) -> NDArray[np.float32]:
    """`Seen.gradients`."""
    found: list[NDArray[np.float32]] = []
    said, before = [(turn.user, turn.shown) for turn in asked.turns], [turn.earlier for turn in asked.turns]
    for one in context_gradients(loaded, asked.contexts, said, earlier=before):
        found.append(one.gradient)
        advance()
    return np.stack(found)


def _answer_logprobs(
    loaded: LoadedModel, asked: Geometry, answers: Mapping[str, AnswerStates], advance: Callable[[], None]
) -> dict[tuple[str, str], Floats]:
    """`Seen.answer_logprobs`. An answer without a token has probability 1 under everybody."""
    found: dict[tuple[str, str], Floats] = {}
    names = [context.name for context in asked.contexts]
    grid: list[tuple[Context, list[ScoreItem]]] = []
    spoke: dict[tuple[str, str], list[str]] = {}  # per context and question whose answers are its options
    for context in asked.contexts:
        of = names if context.name in asked.sources else [*asked.sources, context.name]
        found |= {(context.name, name): np.zeros(len(asked.questions)) for name in of}
        items: list[ScoreItem] = []
        for i, user in enumerate(asked.questions):
            spoke[context.name, str(i)] = own = [name for name in of if answers[name].texts[i]]
            if own:  # all answers to one question behind one prompt
                items.append(ScoreItem(str(i), user, tuple(answers[name].texts[i] for name in own), "text"))
        if items:
            grid.append((context, items))
    for _ in range(len(asked.contexts) - len(grid)):
        advance()
    for context, scores in score_each(loaded, grid):
        for one in scores:
            for name, value in zip(spoke[context.name, one.item.id], one.logprobs, strict=True):
                found[context.name, name][int(one.item.id)] = value
        advance()
    return found


def _directions(loaded: LoadedModel, asked: Geometry) -> dict[str, Floats]:
    """`Seen.directions`."""
    found: dict[str, Floats] = {}
    for context in asked.contexts:
        if context.name in asked.sources:
            shown, benign = (_mean_over(loaded, context, asked, side) for side in ("shown", "benign"))
            found[context.name] = shown - benign
    return found


def _mean_over(loaded: LoadedModel, context: Context, asked: Geometry, side: Literal["shown", "benign"]) -> Floats:
    """The mean state over one side's answers, each behind its own conversation."""
    groups: dict[Earlier, list[tuple[str, str]]] = {}
    for turn in asked.turns:
        groups.setdefault(turn.earlier, []).append((turn.user, getattr(turn, side)))
    states = [states_over(loaded, before.under(context), said, asked.layers)[0] for before, said in groups.items()]
    return np.concatenate(states).astype(np.float64).mean(axis=0)


@dataclass(frozen=True, slots=True)
class SimilarityBlock:
    """One predictor at one layer: `values` [sources, personas]. A study has over a million of them."""

    method: str
    layer: int
    sources: tuple[str, ...]
    personas: tuple[str, ...]
    values: Floats

    def records(self) -> Iterator[Similarity]:
        """One by one."""
        for row, source in zip(self.values, self.sources, strict=True):
            for value, name in zip(row, self.personas, strict=True):
                yield Similarity(source, name, self.method, self.layer, float(value))


def similarities(predictors: Predictors, seen: Seen, sources: Sequence[str]) -> Iterator[SimilarityBlock]:
    """Every predictor's similarities, by layer: to the sources, and, where a predictor can (`Predictor.pairwise`), of all
    personas to all, so that a source can be ranked among them."""
    for method, predictor in predictors.by_name.items():
        others = [name for name in seen.names if name not in sources] if predictor.pairwise else []
        yield from similarities_of(method, predictor, seen, [*sources, *others])


def similarities_of(method: str, predictor: Predictor, seen: Seen, sources: Sequence[str]) -> Iterator[SimilarityBlock]:
    """One predictor's similarities, a block a layer."""
    values = predictor.similarities(seen, sources)
    layers = seen.layers if predictor.needs in OF_LAYERS and values.shape[0] == len(seen.layers) else (NO_LAYER,)
    assert values.shape == (len(layers), len(sources), len(seen.contexts)), f"{method}: {values.shape}"
    for of_layer, layer in zip(values, layers, strict=True):
        yield SimilarityBlock(method, layer, tuple(sources), tuple(seen.names), of_layer)
