"""The mode check of the choice probe: can the untrained model answer by label at all?

A model that is at chance by label has no accuracy to lose there, and its leakage would be noise about a letter bias.
Which mode is used is decided once, on the untrained model, and holds before, during and after training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import beta

Mode = Literal["label", "text"]
LEVEL = 0.01  # of the binomial test: the plan of the capability experiment
ROOM = 0.1  # twice the fall that the capability experiment asks of a source


@dataclass(frozen=True, slots=True)
class ModeCheck:
    """Accuracy of one mode on the untrained model. `chance`: mean of 1 / choices over the questions. `p`: one-sided,
    against guessing; 1 for no question."""

    questions: int
    right: int
    chance: float
    p: float

    @property
    def above_chance(self) -> bool:
        """Whether guessing is rejected at `LEVEL`."""
        return self.p < LEVEL

    @property
    def has_room(self) -> bool:
        """Whether there may be something to lose: guessing is rejected, or accuracy may lie `ROOM` above chance (upper
        95 % bound of Clopper and Pearson 1934), as it may where few questions were asked."""
        wrong = self.questions - self.right
        highest = float(beta.ppf(0.95, self.right + 1, wrong)) if wrong else 1.0
        return self.above_chance or highest - self.chance > ROOM

    def __str__(self) -> str:
        return f"{self.right} of {self.questions} right, chance {self.chance:.3f}, p = {self.p:.2g}"


@dataclass(frozen=True, slots=True)
class DecidedMode:
    """The mode that was chosen and why. `warning` is "" unless no mode is above chance."""

    mode: Mode
    reason: str
    warning: str = ""
    label: ModeCheck | None = None  # None: not tried
    text: ModeCheck | None = None


def guessing_tail(right: int, choices: Sequence[int]) -> float:
    """P(at least `right` of the questions right) for a guesser; question i has `choices[i]` choices.

    Exact: the sum of independent Bernoulli trials of unequal probability, by convolution; with equal numbers of
    choices it is the binomial tail. 1 for no question.
    """
    distribution = np.ones(1)
    for count in choices:
        distribution = np.convolve(distribution, (1 - 1 / count, 1 / count))
    return float(min(1.0, distribution[right:].sum()))


def mode_check(right: Sequence[bool], choices: Sequence[int]) -> ModeCheck:
    """The check of one mode from which questions were right and how many choices each had. Resampling unit: the
    question, each of which must have been asked once."""
    chance = float(np.mean([1 / count for count in choices])) if choices else 0.0
    return ModeCheck(len(right), sum(right), chance, guessing_tail(sum(right), choices))


def decide(label: ModeCheck | None, text: ModeCheck | None) -> DecidedMode:
    """Label where it is above chance, else text. `label` None: there are no labels in view; `text` None: not needed,
    since label is above chance."""
    if label is not None and label.above_chance:
        return DecidedMode("label", f"the untrained model is above chance by label ({label})", "", label, text)
    why = f"by label the untrained model is at chance ({label})" if label else "the choices are not in view"
    if text is None or text.above_chance:
        return DecidedMode("text", f"{why}; by text it is above chance ({text})", "", label, text)
    warning = (
        f"the choice probe may be blind: {why}, and by text too ({text}); a drop in accuracy cannot be told from noise"
    )
    return DecidedMode("text", f"{why}; by text too ({text})", warning, label, text)
