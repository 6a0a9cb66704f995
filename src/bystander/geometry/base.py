"""What a predictor of leakage is: a similarity of every persona to a source, from what it needs to see."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from bystander.core.records import NOTHING_EARLIER, Context, Earlier, Row

if TYPE_CHECKING:
    from torch import Tensor  # plans read what a predictor needs, and do without torch

Floats = NDArray[np.float64]
# What a predictor reads: centroids of hidden states at the prompt's end or over the model's own answers, the distribution
# of the answer's first token, log-probabilities of whole answers, the prompts alone, the rows that the study trains on, and
# of those what they add to the states (the direction from benign to shown answers) and the gradient of their loss under
# each persona. What costs passes is computed only where a predictor needs it.
Need = Literal[
    "prompt_states", "answer_states", "first_token", "answer_logprobs", "prompts", "training_rows", "training_direction",
    "training_gradients",
]  # fmt: skip
# Needs that bring a similarity for every layer.
OF_LAYERS: tuple[Need, ...] = ("prompt_states", "answer_states", "training_direction")
OF_ANSWERS: tuple[Need, ...] = ("answer_states", "answer_logprobs")
OF_TRAINING: tuple[Need, ...] = ("training_rows", "training_direction", "training_gradients")


@dataclass(frozen=True, slots=True)
class Turn:
    """A question that is trained on, with the answer that shows the behavior and the benign one. `earlier`: what the
    question brings of its own conversation."""

    user: str
    shown: str
    benign: str
    earlier: Earlier = NOTHING_EARLIER


@dataclass(frozen=True, slots=True)
class Seen:
    """What predictors see. `states` float64 [personas, layers, hidden]: the mean, over open questions, of the hidden
    state at the last prompt token; `answer_states` the same over the tokens of a sampled answer, without layers where no
    predictor needs them; `layers` their numbers, 0 = embeddings; `prompt_tokens` by persona; `rows`: the rows trained
    with each source as such.

    `answer_logprobs` (asked under, answered by) -> float64 [questions]: log-probability in nats, summed over the tokens
    of the answer, of every persona's answer under itself and each source and of every source's under each persona.
    `directions` float64 [layers, hidden] by source: mean state over the shown answers that are trained minus that over
    the benign answers to the same questions, under the source. `gradients` float32 [personas, parameters]: of the loss of
    the shown answers. Empty where no predictor needs them."""

    contexts: tuple[Context, ...]
    layers: tuple[int, ...]
    states: Floats
    prompt_tokens: Mapping[str, int]
    rows: Mapping[str, Sequence[Row]]
    answer_states: Floats = field(default_factory=lambda: np.empty((0, 0, 0)))
    answer_logprobs: Mapping[tuple[str, str], Floats] = field(default_factory=dict[tuple[str, str], Floats])
    directions: Mapping[str, Floats] = field(default_factory=dict[str, Floats])
    gradients: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))

    @property
    def names(self) -> list[str]:
        """The personas, in the order of the set."""
        return [context.name for context in self.contexts]

    def first(self, count: int) -> Seen:
        """The same of the first personas alone."""
        return replace(
            self, contexts=self.contexts[:count], states=self.states[:count], answer_states=self.answer_states[:count],
            gradients=self.gradients[:count],
        )  # fmt: skip

    def places(self, sources: Sequence[str]) -> list[int]:
        """Where the sources stand among the personas."""
        return [self.names.index(source) for source in sources]


class Predictor(ABC):
    """A predictor; one instance sees one model. A class of one's own derives from this and takes no arguments."""

    needs: ClassVar[Need]
    label: ClassVar[str]  # in a legend
    pairwise: ClassVar[bool] = False  # True: any persona can stand as the source, at no pass more
    by_default: ClassVar[bool] = True  # False: computed where a study names it, since it costs much

    def observe(self, name: str, logprobs: Tensor, is_source: bool) -> None:
        """One persona's natural log-probabilities, float32 [questions, vocabulary] on the model's device, of the answer's
        first token; the sources come first, so that memory need not grow with the number of personas. For predictors
        that need `first_token`."""
        del name, logprobs, is_source

    @abstractmethod
    def similarities(self, seen: Seen, sources: Sequence[str]) -> Floats:
        """Similarity of every persona to every source, larger for more alike: [layers, sources, personas], or
        [1, sources, personas] where there are no layers."""


@dataclass(frozen=True, slots=True)
class Predictors:
    """Predictors by name, in the order in which their similarities are written."""

    by_name: Mapping[str, Predictor]

    def need(self, *what: Need) -> bool:
        """Whether one of the predictors reads one of these."""
        return any(one.needs in what for one in self.by_name.values())

    def passes(self) -> int:
        """How often every persona is gone through."""
        return 1 + self.need(*OF_ANSWERS) + self.need("answer_logprobs") + self.need("training_gradients")

    def observe(self, name: str, logprobs: Tensor, is_source: bool) -> None:
        """Show one persona's distributions to the predictors that read the answer's first token."""
        for predictor in self.by_name.values():
            if predictor.needs == "first_token":
                predictor.observe(name, logprobs, is_source)
