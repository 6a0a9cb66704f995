"""What decides the numbers of an analysis, beside its tables."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """`method` and `layer` name the predictor that the study chose before it ran; `layer` None: none was chosen, so that
    every gradient is exploratory. The rest is resampling effort and limits."""

    method: str = "cosine"
    layer: int | None = None
    seed: int = 0
    permutations: int = 9_999  # so that p is a multiple of 1/10,000
    partial_permutations: int = 1_999  # partials are many, and their p need not resolve below 1/2,000
    resamples: int = 2_000  # for intervals of means; the variance of a rank correlation takes half of them
    failed_limit: float = 0.05  # ../shared/DESIGN.md, "Errors"; issue 4: a cell fails loudly above 5 %
    control_limit: float = 0.02  # fall of a control's accuracy that counts as a broken model; issue 5, the gate's rule
    coherence_limit: float = 10.0  # fall in judged coherence (0-100) that counts as a collapse
    gradient_over: tuple[str, ...] = ("held-out",)  # roles whose personas enter a gradient


KEYS = ("behavior", "source", "arm", "config")  # a training design; with its seed, one training
OUTCOME_KEYS = ("probe", "dataset", "metric")
UNIT = ("context", "persona")  # what is measured: a persona, or a bare context
