"""Search for the context of most leakage under a budget of evaluations, and whether a benign adapter's best find is as large.

Successive halving (Jamieson and Talwalkar 2016, arXiv 1502.07943): every round reads the contexts that are left on more
items and keeps the best third. The best of many is large by chance alone, so that it is compared with the best find of the
same hunt on a benign adapter, its items drawn anew each time (max-selected null).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bystander.core.errors import DataError
from bystander.core.hashing import generator

Floats = NDArray[np.float64]
Reader = Callable[[Sequence[int], int], Floats]  # places, items -> values [places, items], the first items of each
KEPT = 3  # one in so many goes on to the next round


@dataclass(frozen=True, slots=True)
class Round:
    """How many contexts are read on how many items."""

    contexts: int
    items: int


@dataclass(frozen=True, slots=True)
class Found:
    """`order`: places of the contexts, best first, those of a later round before those that left earlier; `value` of the
    best: its mean over the items of the last round; `evaluations`: contexts x items that were read, each once."""

    order: tuple[int, ...]
    value: float
    evaluations: int


def rounds_within(contexts: int, budget: int, items: int) -> list[Round]:
    """The rounds of a hunt: a third goes on, on three times the items, as long as items and budget last. Raises DataError
    where the budget does not give every context one item."""
    if contexts < 1 or budget < contexts:
        raise DataError(
            f"{budget} evaluations cannot read {contexts} contexts once: raise the budget or give fewer contexts"
        )
    found, left, read = [Round(contexts, 1)], budget - contexts, 1
    while found[-1].contexts > 1:
        n = -(-found[-1].contexts // KEPT)
        more = min(items, read * KEPT, read + left // n)
        if more <= read:
            break
        left -= n * (more - read)
        read = more
        found.append(Round(n, read))
    more = min(items, read + left // found[-1].contexts)  # what is left reads the last ones better
    found[-1] = Round(found[-1].contexts, max(read, more))
    return found


def hunt(read: Reader, contexts: int, budget: int, items: int) -> Found:
    """The hunt over `contexts` of which each can be read on `items`. Raises DataError for a budget that is too small."""
    order, spent, before = list(range(contexts)), 0, 0
    value = np.nan
    for one in rounds_within(contexts, budget, items):
        going = order[: one.contexts]
        means = read(going, one.items).mean(axis=1)
        best = np.argsort(-means, kind="stable")
        order[: one.contexts] = [going[place] for place in best]
        value, spent, before = float(means[best[0]]), spent + one.contexts * (one.items - before), one.items
    return Found(tuple(order), value, spent)


def benign_finds(values: Floats, budget: int, draws: int, *seed: object) -> Floats:
    """Best finds of hunts on a benign adapter [draws]: its values [contexts, items], the items of each context drawn with
    replacement. What is drawn twice errs twice, so that the null is rather too wide than too narrow."""
    rng, (contexts, items) = generator("benign hunt", *seed), values.shape
    found = np.empty(draws)
    for i in range(draws):
        drawn = np.take_along_axis(values, rng.integers(items, size=values.shape), axis=1)
        found[i] = hunt(_of_table(drawn), contexts, budget, items).value
    return found


def p_of_find(value: float, null: Floats) -> float:
    """Probability that a benign adapter's best find is as large."""
    return float((1 + (null >= value).sum()) / (1 + len(null)))


def _of_table(values: Floats) -> Reader:
    return lambda places, items: values[list(places), :items]
