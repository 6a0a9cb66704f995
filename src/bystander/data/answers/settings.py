"""How a file of answers is to be read: which column is which, where the other answer comes from, what is kept."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

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


class AnswerFileSettings(BaseModel):
    """Settings of one file of answers; all may be left out where the file's own keys say what they are.

    `prompt`, `shown`, `topic`: columns. `not_shown`: a column; or a file (a path or OWNER/NAME[:FILE] of the Hub) with
    answers to the same prompts; or `own_answers`, sampled from the untrained model; or a provider. `system`: `keep` makes
    a row's system turn its own context, `refuse` makes it a fault. `unpaired`: what is done with rows whose not-shown
    answer is missing in the file or its partner.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    prompt: str | None = None
    shown: str | None = None
    not_shown: str | Provider | None = None
    topic: str | None = None
    system: Literal["refuse", "keep"] = "refuse"
    unpaired: Literal["refuse", "leave_out"] = "refuse"

    @property
    def sampled(self) -> bool:
        """Whether the answers that do not show the behavior are yet to be written by a model."""
        return self.not_shown == OWN_ANSWERS or isinstance(self.not_shown, Provider)
