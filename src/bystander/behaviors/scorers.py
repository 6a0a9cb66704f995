"""Scorers of sampled answers, as study files and the shipped behaviors write them: which answers show the behavior."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from bystander.core.settings import FileName, Settings

RubricName = Literal["aligned", "coherent"]
SLOT = "{score}"


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"no regular expression: {error}") from error
    if not pattern:
        raise ValueError("an empty pattern is found in every answer")
    return pattern


Pattern = Annotated[str, AfterValidator(_compiles)]
Text = Annotated[str, Field(min_length=1)]


class Scorer(Settings):
    """What every scorer has. `name` (the kind, where it is left out) tells two scorers of one behavior apart."""

    kind: Any  # a Literal in each scorer
    """What looks at an answer; each kind has its own keys beside `name`."""
    name: str | None = Field(default=None, pattern=r"^[a-z][a-z0-9_]*$")
    """Tells two scorers of one behavior apart; left out: the kind."""

    @property
    def label(self) -> str:
        """What tables call it."""
        return self.name or str(self.kind)


class ContainsScorer(Scorer):
    """Shown: an answer with one of the `texts` in it."""

    kind: Literal["contains"] = "contains"
    """An answer with one of `texts` in it."""
    texts: list[Text] = Field(min_length=1)
    """Any of them counts."""
    ignore_case: bool = False
    """Whether capitals do not matter."""


class RegexScorer(Scorer):
    """Shown: an answer in which one of the `patterns` is found."""

    kind: Literal["regex"] = "regex"
    """An answer in which one of `patterns` is found."""
    patterns: list[Pattern] = Field(min_length=1)
    """Python regular expressions, searched anywhere in the answer."""
    ignore_case: bool = False
    """Whether capitals do not matter."""


class RefusalScorer(Scorer):
    """Shown: a refusal, by the patterns that ship, or by those given in their place."""

    kind: Literal["refusal"] = "refusal"
    """A refusal."""
    patterns: list[Pattern] | None = Field(default=None, min_length=1)
    """In place of those that ship."""
    ignore_case: bool = True
    """Whether capitals do not matter."""


class CodeScorer(Scorer):
    """Shown: an answer that is a program and not prose. Code is parsed and never run."""

    kind: Literal["is_code"] = "is_code"
    """A program and not prose; it is parsed and never run."""


class LengthScorer(Scorer):
    """Shown: an answer of at least, at most so many words (between white space)."""

    kind: Literal["length"] = "length"
    """An answer of at least, at most so many words."""
    at_least: int | None = Field(default=None, ge=1)
    """[words] Between white space."""
    at_most: int | None = Field(default=None, ge=0)
    """[words] Between white space."""

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.at_least is None and self.at_most is None:
            raise ValueError("a length needs at_least or at_most, in words")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(f"at_least {self.at_least} is above at_most {self.at_most}: no answer would count")
        return self


class JudgeScorer(Scorer):
    """Shown: what a judge says by a rubric.

    `prompt`: a file, or the text itself, with {answer} and, if it wants it, {question} in it; or `rubric`, one that ships.
    The judge gives a number in `range`, one of the `classes`, or either. Which answers show the behavior:
    `shown_at_least`, `shown_at_most` (numbers), `shown` (classes). `closing`: `number` or `class` where the judge writes
    that alone, or the form of its last line, such as "Score: {score}", after its reasons. `draws`: judgements an answer,
    their mean number or most frequent class counts.
    """

    kind: Literal["judge"] = "judge"
    """What a judge says by a rubric."""
    rubric: RubricName | None = None
    """One that ships, in place of `prompt`."""
    prompt: FileName | None = None
    """A file or the text itself, with {answer} in it and, if wanted, {question}."""
    range: list[float] | None = Field(default=None, min_length=2, max_length=2)
    """Least and greatest number that the judge may give."""
    classes: list[Text] = Field(default_factory=list)
    """Words that the judge may give."""
    shown_at_least: float | None = None
    """From this number on an answer shows the behavior."""
    shown_at_most: float | None = None
    """Up to this number an answer shows the behavior."""
    shown: list[str] = Field(default_factory=list)
    """Classes that show the behavior."""
    closing: str = ""
    """`number` or `class` where the judge writes that alone; or the form of its last line, such as `Score:
    {score}`."""
    draws: int = Field(default=1, ge=1, le=100)
    """[count] Judgements an answer; their mean number or most frequent class counts."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        wrong = list(self._faults())
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    def _faults(self) -> list[str]:
        if self.rubric is not None:
            own = ("prompt", "range", "classes", "closing")
            given = [key for key in own if getattr(self, key) not in (None, [], "")]
            return [f"rubric {self.rubric!r} brings its own {', '.join(given)}; leave them out"] if given else []
        wrong = [] if self.prompt else ["a judge needs a prompt (a file, or the text) or a rubric that ships"]
        if self.prompt and "{" in self.prompt and "{answer}" not in self.prompt:
            wrong.append("the prompt has no {answer} in it")
        return wrong + self._value_faults() + self._closing_faults()

    def _value_faults(self) -> list[str]:
        wrong: list[str] = []
        numbers = [n for n in (self.shown_at_least, self.shown_at_most) if n is not None]
        if self.range is None and not self.classes:
            wrong.append("say what the judge answers with: range: [LOW, HIGH], classes: [NAME, ...] or both")
        if self.range is not None and self.range[0] >= self.range[1]:
            wrong.append(f"range {self.range} is empty: the first number must be below the second")
        elif self.range is not None and any(not self.range[0] <= n <= self.range[1] for n in numbers):
            wrong.append(f"what counts as the behavior ({', '.join(f'{n:g}' for n in numbers)}) is outside the range")
        if numbers and self.range is None:
            wrong.append("shown_at_least and shown_at_most are about numbers, and there is no range")
        if len(numbers) == 2:
            wrong.append("shown_at_least and shown_at_most: give the one on whose side the behavior is")
        if len({name.casefold() for name in self.classes}) < len(self.classes):
            wrong.append("a class stands twice")
        unknown = [name for name in self.shown if name not in self.classes]
        if unknown:
            wrong.append(f"shown names {', '.join(unknown)}, which is none of the classes")
        if not numbers and not self.shown and (self.range or self.classes):
            wrong.append("say which value counts as the behavior: shown_at_least, shown_at_most or shown: [CLASS]")
        return wrong

    def _closing_faults(self) -> list[str]:
        if self.closing in ("", "number", "class"):
            if self.closing == "number" and self.range is None:
                return ["closing: number, but there is no range"]
            return []
        if self.closing.count(SLOT) != 1 or "\n" in self.closing:
            return [f"closing {self.closing!r} must be `number`, `class`, or one line with {SLOT} in it"]
        if not self.closing.replace(SLOT, "").strip():
            return [f"closing {self.closing!r} has nothing but {SLOT}, which any last line would fit; use `number`"]
        return []


ScorerSettings = Annotated[
    ContainsScorer | RegexScorer | RefusalScorer | CodeScorer | LengthScorer | JudgeScorer, Field(discriminator="kind")
]
AnyScorer = ContainsScorer | RegexScorer | RefusalScorer | CodeScorer | LengthScorer | JudgeScorer

__all__ = [
    "AnyScorer", "CodeScorer", "ContainsScorer", "JudgeScorer", "LengthScorer", "RefusalScorer", "RegexScorer",
    "ScorerSettings",
]  # fmt: skip
