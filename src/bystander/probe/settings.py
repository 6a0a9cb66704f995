"""The probes' settings, as study files write them. Apart from the probes, so that reading a study needs no torch."""

from __future__ import annotations

from pydantic import Field

from bystander.behaviors.base import Settings


class MarkerProbeSettings(Settings):
    """`questions` held-out questions are teacher-forced; `sampled` of them are also answered freely, `samples` times."""

    questions: int = Field(default=8, ge=1)
    sampled: int = Field(default=2, ge=0)
    samples: int = Field(default=1, ge=1)
    max_tokens: int = Field(default=24, ge=1)
    temperature: float = Field(default=1.0, ge=0)
