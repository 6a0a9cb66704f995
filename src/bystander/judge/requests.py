"""What a model is asked: requests, how a judge's prompt is filled, and the state of one run of requests."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from bystander.judge.cost import TokenRates

if TYPE_CHECKING:
    from inspect_ai.model import GenerateConfig, Model

_SLOT = re.compile(r"\{(question|answer)\}")


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt, and the key under which its answer is kept."""

    key: str
    prompt: str


@dataclass
class Session:
    """One run of requests on an event loop. `reserved`: dollars of the requests that are not answered yet."""

    model: Model
    config: GenerateConfig
    rates: TokenRates
    reserved: float = 0.0
    failed_in_a_row: int = 0


class Judgeable(Protocol):
    """What a judge must know of a question: its wordings, and the judge's prompts by name, with {question} and {answer}."""

    @property
    def paraphrases(self) -> tuple[str, ...]: ...
    @property
    def prompts(self) -> Mapping[str, str]: ...


def fill_prompt(template: str, question: str, answer: str) -> str:
    """The prompt for the judge. Both slots are filled in one pass, so that an answer which contains "{question}" stays
    as it is."""
    values = {"question": question, "answer": answer}
    return _SLOT.sub(lambda match: values[match.group(1)], template)
