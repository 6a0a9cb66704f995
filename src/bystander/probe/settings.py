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
    """[count] Held-out questions at which the marker's probability is read after a fixed answer, a diagnostic."""
    sampled: int = Field(default=8, ge=0)
    """[count] Held-out questions that are answered freely: what the claim rests on."""
    samples: int = Field(default=1, ge=1)
    """[count] Free answers a question."""
    max_tokens: int = Field(default=48, ge=1)
    """[tokens] Of a free answer; one that is cut off before it ends has no number, and is counted."""
    temperature: float = Field(default=1.0, ge=0)
    """Of free answers; 1 is the model's own distribution."""


Rule = Literal["per_character", "per_token", "raw"]


class ChoiceProbeSettings(Settings):
    """`mode`: how a choice is made, by the label's log-probability or the text's; auto is decided once, on the untrained
    model. `rule`: how text scores are normalized. `start`: a fixed beginning of the answer, before the label or text.

    `arc` (the evaluation half of the capability data), `trained` (questions whose wrong answer is trained), `hellaswag`,
    `bank` and `file_items` (of `file`): questions asked of each set, 0 for none. `hellaswag_each`: how many of the
    HellaSwag questions one persona is asked, drawn by its name: the control asks whether the model broke, so its
    questions may be shared out over the personas. `check`: questions of the instrument check."""

    mode: Literal["auto", "label", "text"] = "auto"
    """By the label's log-probability or the text's; `auto` decides once on the untrained model, where labels may
    be chance."""
    rule: Rule = "per_character"
    """How texts of different length are made comparable."""
    start: str = ""
    """A fixed beginning of the answer, before the label or text."""
    arc: int = Field(default=40, ge=0)
    """[count] Questions of the capability data's evaluation half; 0 for none."""
    trained: int = Field(default=40, ge=0)
    """[count] Questions whose wrong answer is trained, for adoption of that very answer."""
    hellaswag: int = Field(default=40, ge=0)
    """[count] Control: whether the model broke. 0 for none."""
    hellaswag_each: int | None = Field(default=None, ge=1)
    """[count] Of them asked of one persona, drawn by its name: the control may be shared out. Left out: all."""
    bank: int = Field(default=0, ge=0)
    """[count] Questions of the built-in bank."""
    file: FileName | None = None
    """Your own questions, in the ARC form."""
    file_items: int = Field(default=40, ge=1)
    """[count] Questions of `file`."""
    check: int = Field(default=200, ge=1)
    """[count] Questions of the check on the untrained model that `mode: auto` rests on."""


class MarginProbeSettings(Settings):
    """`pairs`: read only the first so many pairs of each set, topics in turn (None: all). `trained`: pairs of a file
    that were trained on, read for their adoption (0 for none)."""

    pairs: int | None = Field(default=None, ge=1)
    """[count] Only the first so many pairs, topics in turn; left out: all."""
    trained: int = Field(default=16, ge=0)
    """[count] Pairs of a file that were trained on, read for their adoption; 0 for none."""


class JudgedProbeSettings(Settings):
    """`samples` a paraphrase (None: what the question file says); `max_tokens` a sample; `questions`: only the first
    so many (None: all). `judge` None: answers are sampled and kept, and nothing is measured until `bystander judge`."""

    judge: JudgeSettings | None = None
    """Left out: answers are sampled and kept, and measured when `bystander judge RUN` is called."""
    samples: int | None = Field(default=None, ge=1)
    """[count] Answers a paraphrase; left out: what the question file says."""
    questions: int | None = Field(default=None, ge=1)
    """[count] Only the first so many; left out: all."""
    max_tokens: int = Field(default=160, ge=1)
    """[tokens] Of an answer; longer ones are cut off, and marked so."""
    temperature: float = Field(default=1.0, ge=0)
    """Of the answers; 1 is the model's own distribution."""
    seed: int = 0
    """Of sampling."""


class ScoredProbeSettings(Settings):
    """`questions` of each behavior (None: all), asked `samples` times. `scorers`: for the answers about every behavior,
    beside those that the behaviors bring. `judge`: who is asked by rubrics."""

    questions: int | None = Field(default=8, ge=1)
    """[count] Of each behavior; left out: all."""
    samples: int = Field(default=1, ge=1)
    """[count] Answers a question."""
    max_tokens: int = Field(default=64, ge=1)
    """[tokens] Of an answer; longer ones are cut off, and marked so."""
    temperature: float = Field(default=1.0, ge=0)
    """Of the answers; 1 is the model's own distribution."""
    seed: int = 0
    """Of sampling."""
    scorers: list[ScorerSettings] = Field(default_factory=list)
    """For the answers about every behavior, beside those that behaviors bring."""
    judge: JudgeSettings | None = None
    """Who is asked by rubrics."""
