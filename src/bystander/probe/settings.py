"""The probes' settings, as study files write them. Apart from the probes, so that reading a study needs no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bystander.behaviors.scorers import ScorerSettings
from bystander.core.settings import FileName, Settings
from bystander.judge.settings import JudgeSettings


class MarkerProbeSettings(Settings):
    """`sampled` held-out questions are answered freely, `samples` times each, in at most `max_tokens` tokens: the claim
    rests on what is read where those answers end, and one that is cut off before has no number. After a fixed answer
    to `questions` of them the marker is read as a diagnostic."""

    questions: int = Field(default=8, ge=1)
    sampled: int = Field(default=8, ge=0)
    samples: int = Field(default=1, ge=1)
    max_tokens: int = Field(default=48, ge=1)
    temperature: float = Field(default=1.0, ge=0)


Rule = Literal["per_character", "per_token", "raw"]


class ChoiceProbeSettings(Settings):
    """`mode`: how a choice is made, by the label's log-probability or the text's; auto is decided once, on the untrained
    model. `rule`: how text scores are normalized. `start`: a fixed beginning of the answer, before the label or text.

    `arc` (the evaluation half of the capability data), `trained` (questions whose wrong answer is trained), `hellaswag`,
    `bank` and `file_items` (of `file`): questions asked of each set, 0 for none. `hellaswag_each`: how many of the
    HellaSwag questions one persona is asked, drawn by its name: the control asks whether the model broke, so its
    questions may be shared out over the personas. `check`: questions of the instrument check."""

    mode: Literal["auto", "label", "text"] = "auto"
    rule: Rule = "per_character"
    start: str = ""
    arc: int = Field(default=40, ge=0)
    trained: int = Field(default=40, ge=0)
    hellaswag: int = Field(default=40, ge=0)
    hellaswag_each: int | None = Field(default=None, ge=1)
    bank: int = Field(default=0, ge=0)
    file: FileName | None = None
    file_items: int = Field(default=40, ge=1)
    check: int = Field(default=200, ge=1)


class MarginProbeSettings(Settings):
    """`pairs`: read only the first so many pairs of each set, topics in turn (None: all). `trained`: pairs of a file
    that were trained on, read for their adoption (0 for none)."""

    pairs: int | None = Field(default=None, ge=1)
    trained: int = Field(default=16, ge=0)


class JudgedProbeSettings(Settings):
    """`samples` a paraphrase (None: what the question file says); `max_tokens` a sample; `questions`: only the first
    so many (None: all). `judge` None: answers are sampled and kept, and nothing is measured until `bystander judge`."""

    judge: JudgeSettings | None = None
    samples: int | None = Field(default=None, ge=1)
    questions: int | None = Field(default=None, ge=1)
    max_tokens: int = Field(default=160, ge=1)
    temperature: float = Field(default=1.0, ge=0)
    seed: int = 0


class ScoredProbeSettings(Settings):
    """`questions` of each behavior (None: all), asked `samples` times. `scorers`: for the answers about every behavior,
    beside those that the behaviors bring. `judge`: who is asked by rubrics."""

    questions: int | None = Field(default=8, ge=1)
    samples: int = Field(default=1, ge=1)
    max_tokens: int = Field(default=64, ge=1)
    temperature: float = Field(default=1.0, ge=0)
    seed: int = 0
    scorers: list[ScorerSettings] = Field(default_factory=list)
    judge: JudgeSettings | None = None
