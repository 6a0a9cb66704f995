"""What a predictor of leakage is: a similarity of every persona to a source, from what it needs to see."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from bystander.core.records import Context, Row

Floats = NDArray[np.float64]
# What a predictor reads: centroids of hidden states at the prompt's end or over the model's own answers, the distribution
# of the answer's first token, the prompts alone, or the rows that the study trains on. Answers are sampled only where a
# predictor needs them.
Need = Literal["prompt_states", "answer_states", "first_token", "prompts", "training_rows"]
OF_LAYERS: tuple[Need, ...] = ("prompt_states", "answer_states")  # needs that bring a similarity for every layer


@dataclass(frozen=True, slots=True)
class Seen:
    """What predictors see. `states` float64 [personas, layers, hidden]: the mean, over open questions, of the hidden
    state at the last prompt token; `answer_states` the same over the tokens of a sampled answer, without layers where no
    predictor needs them; `layers` their numbers, 0 = embeddings; `prompt_tokens` by persona; `rows`: the rows trained
    with each source as such."""

    contexts: tuple[Context, ...]
    layers: tuple[int, ...]
    states: Floats
    prompt_tokens: Mapping[str, int]
    rows: Mapping[str, Sequence[Row]]
    answer_states: Floats = field(default_factory=lambda: np.empty((0, 0, 0)))

    @property
    def names(self) -> list[str]:
        """The personas, in the order of the set."""
        return [context.name for context in self.contexts]

    def places(self, sources: Sequence[str]) -> list[int]:
        """Where the sources stand among the personas."""
        return [self.names.index(source) for source in sources]


class Predictor(ABC):
    """A predictor; one instance sees one model. A class of one's own derives from this and takes no arguments."""

    needs: ClassVar[Need]
    label: ClassVar[str]  # in a legend
    by_default: ClassVar[bool] = True  # False: computed where a study names it, since it costs much

    def observe(self, name: str, logprobs: NDArray[np.float32], is_source: bool) -> None:
        """One persona's natural log-probabilities [questions, vocabulary] of the answer's first token; the sources come
        first, so that memory need not grow with the number of personas. For predictors that need `first_token`."""
        del name, logprobs, is_source

    @abstractmethod
    def similarities(self, seen: Seen, sources: Sequence[str]) -> Floats:
        """Similarity of every persona to every source, larger for more alike: [layers, sources, personas], or
        [1, sources, personas] where there are no layers."""
