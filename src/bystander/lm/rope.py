"""How Llama 3 stretches its positions, read back from the factors that a GGUF holds of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bystander.core.errors import ModelError

STRETCHES = (8.0, 32.0)  # of Llama 3.1 and 3.3, and of 3.2
LOW, HIGH, WINDOW = 1.0, 4.0, 8192  # the same in all of them


def llama3_factors(stretch: float, theta: float, half: int) -> NDArray[np.float64]:
    """By what each rotary frequency is divided [half of a head's size]: long waves by `stretch`, short ones by 1, in
    between smoothly ("The Llama 3 Herd of Models", arXiv 2407.21783)."""
    waves = 2 * math.pi * theta ** (np.arange(half) / half)
    smooth = np.clip((WINDOW / waves - LOW) / (HIGH - LOW), 0.0, 1.0)
    return 1 / ((1 - smooth) / stretch + smooth)


def llama3_rope(factors: NDArray[np.float32], theta: float) -> dict[str, Any]:
    """The settings of transformers that give these factors. Raises ModelError where none that is known does."""
    for stretch in STRETCHES:
        if np.allclose(factors, llama3_factors(stretch, theta, len(factors)), rtol=1e-3):
            return {
                "rope_type": "llama3", "factor": stretch, "low_freq_factor": LOW, "high_freq_factor": HIGH,
                "original_max_position_embeddings": WINDOW,
            }  # fmt: skip
    raise ModelError("it stretches its positions in a way that is not Llama 3's. Use an ordinary checkpoint.")
