"""How a file of answers is to be read: which column is which, where the other answer comes from, what is kept."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from bystander.core.settings import FileName, Settings

OWN_ANSWERS = "own_answers"


class Provider(BaseModel):
    """A model at a provider that writes the answers which do not show the behavior, with the meaning that a judge's
    settings have. `instruction` is put after each prompt. `dollars`: the most that may be spent."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)

    model: str
    """As Inspect writes it: `openai/NAME`, `anthropic/NAME`."""
    instruction: str = ""
    """Put after each prompt."""
    dollars: float | None = Field(default=None, gt=0)
    """[US dollars] The most that may be spent."""
    base_url: str | None = None
    """Of an OpenAI-compatible server of your own."""
    key_env: str | None = None
    """Variable that holds the key; left out: the provider's usual one."""
    batch: bool = True
    """The provider's batch interface: half the price, up to a day."""


class AnswerFileSettings(Settings):
    """Settings of one file of answers; all may be left out where the file's own keys say what they are.

    `prompt`, `shown`, `topic`: columns. `not_shown`: a column; or a file (a path or OWNER/NAME[:FILE] of the Hub) with
    answers to the same prompts; or `own_answers`, sampled from the untrained model; or a provider. `system`: `keep` makes
    a row's system turn its own context, `refuse` makes it a fault. `unpaired`: what is done with rows whose not-shown
    answer is missing in the file or its partner.
    """

    prompt: str | None = None
    """Column of the prompt; left out: found by its name."""
    shown: str | None = None
    """Column of the answer that shows the behavior; left out: found by its name."""
    not_shown: FileName | Provider | None = None
    """Column, file, `own_answers` (sampled from the untrained model) or provider of the other answer."""
    topic: str | None = None
    """Column that keeps related rows on one side of the split."""
    system: Literal["refuse", "keep"] = "refuse"
    """What is made of a row's system turn: a fault, or its own context."""
    unpaired: Literal["refuse", "leave_out"] = "refuse"
    """What is done with rows that have one answer only."""

    @property
    def sampled(self) -> bool:
        """Whether the answers that do not show the behavior are yet to be written by a model."""
        return self.not_shown == OWN_ANSWERS or isinstance(self.not_shown, Provider)
