"""What a probe that asks a judge says of it before anything is sampled: whether it answers, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bystander.core.errors import JudgeError
from bystander.core.work import CHARACTERS_PER_TOKEN, Work
from bystander.judge.cost import OUTPUT_TOKENS, TOKENS_PER_CHAR, dollars, price_of
from bystander.judge.judging import Judge


def answers(judge: Judge | None, names: Sequence[str]) -> str:
    """That the judge answers and is none of the models under test; "" where there is none. Raises JudgeError."""
    if judge is None:
        return ""
    judge.preflight(names)
    return f"{judge.settings.model} answers"


def cost_of(judge: Judge | None, work: Work, written: float = OUTPUT_TOKENS) -> tuple[float, str]:
    """The judge's price of the work's calls, and how it is known; NaN where its price is not known. `written`: tokens a
    reply."""
    if judge is None:
        return 0.0, ""
    try:
        price = price_of(judge.settings)
    except JudgeError as error:
        return math.nan, str(error)
    read = work.judged_tokens * CHARACTERS_PER_TOKEN * TOKENS_PER_CHAR
    cost = dollars(price, read, work.judged * written, batch=judge.settings.batch)
    return cost, f"{work.judged:,.0f} judgements at ${price.input:g} / ${price.output:g} a million tokens"


def paid(judge: Judge | None) -> float:
    """The judge's ledger, which is the provider's bill."""
    return 0.0 if judge is None else float(judge.ledger().dollars)
