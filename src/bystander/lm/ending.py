"""What the model would say at the place where an answer ends: the marker, or the end of its turn.

The answer is a text that the model has given itself; the place is behind its last token, in front of the marker. There
both are read from the very same logits. Beside the log-probabilities the raw logits and log Z are kept: a marker that
rises because everything else falls is another thing than one that rises by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bystander.core.errors import ModelError
from bystander.core.records import Context
from bystander.lm.forward import run
from bystander.lm.loaded import LoadedModel
from bystander.lm.rows import Batch, Budget, Ints, Row, to_device
from bystander.lm.score import LOGITS_AT_ONCE
from bystander.lm.tokens import Continuations, encode, render_texts, template_of


@dataclass(frozen=True, slots=True)
class EndingItem:
    """A user turn, the answer as it stands before `tail`, and the tail (separator and marker) that may follow it."""

    id: str
    user: str
    answer: str
    tail: str


@dataclass(frozen=True, slots=True)
class Ending:
    """Natural logs. `marker_logprob` is summed over the tail's `tokens`; `end_logprob` is that of the template's
    end-of-turn token at the same place. `marker_logit` (of the tail's first token), `end_logit` and `log_z` (log of the sum
    of exponentials of all logits) are raw, at that place: `end_logprob` = `end_logit` - `log_z`."""

    item: EndingItem
    marker_logprob: float
    end_logprob: float
    marker_logit: float
    end_logit: float
    log_z: float
    tokens: int


@dataclass(frozen=True, slots=True)
class _Plan:
    item: EndingItem
    row: Row
    token: Ints  # the tail's tokens, each predicted at the row's wanted place of the same index


def end_of_turn(loaded: LoadedModel) -> int:
    """The token with which the template ends an answer. Raises ModelError where it ends with ordinary text."""
    ids = encode(loaded.tokenizer, [template_of(loaded.tokenizer).answer_end])[0]
    if not ids or ids[0] not in loaded.tokenizer.added_tokens_decoder:
        raise ModelError(
            f"model {loaded.name}: its chat template ends an answer with no token of its own, so that the end of a turn has "
            "no probability. Leave probes.marker.sampled at 0 for this model."
        )
    return ids[0]


def endings(
    loaded: LoadedModel, asked: Sequence[tuple[Context, Sequence[EndingItem]]], *, token_budget: int | None = None
) -> list[Ending]:
    """The endings of answers given under each context, in the order of `asked`; on a GPU batches go on from a context to
    the next.

    What an item gives does not depend on the others, but for rounding. Raises ModelError as `lm.score.score` does, and
    where the template has no end-of-turn token.
    """
    asked = [(context, items) for context, items in asked if items]
    if not asked:
        return []
    end = end_of_turn(loaded)
    continuations = Continuations(loaded.tokenizer)
    planned = [_plans(loaded, continuations, context, items) for context, items in asked]
    plans = [plan for own in planned for plan in own]

    def read(batch: Batch) -> Tensor:
        return _logits(loaded, batch, np.concatenate([plans[i].token for i in batch.rows]), end)

    found: dict[int, Ending] = {}
    rows = [[plan.row for plan in own] for own in planned]
    for batch, values in run(loaded, rows, Budget.for_model(loaded, token_budget), read):
        numbers = values.cpu().numpy()
        start = 0
        for index in batch.rows:
            own = numbers[start : start + len(plans[index].token)]
            start += len(own)
            found[index] = _ending(plans[index].item, own, plans[index].row.name)
    return [found[i] for i in range(len(plans))]


def _plans(
    loaded: LoadedModel, continuations: Continuations, context: Context, items: Sequence[EndingItem]
) -> list[_Plan]:
    texts = render_texts(loaded.tokenizer, context, [item.user for item in items])
    prompts = encode(loaded.tokenizer, texts)
    return [
        _plan(continuations, context, item, text, prompt)
        for item, text, prompt in zip(items, texts, prompts, strict=True)
    ]


def _plan(continuations: Continuations, context: Context, item: EndingItem, text: str, prompt: list[int]) -> _Plan:
    """The whole sequence but for its last token, after which nothing is read."""
    name = f"answer {item.id!r} under {context.name!r}"
    known = continuations.get(text, prompt, item.answer, item.tail, name)
    sequence = np.array([*prompt, *known.ids], dtype=np.int64)
    first = len(sequence) - known.scored
    wanted = np.arange(first - 1, len(sequence) - 1, dtype=np.int64)
    return _Plan(item, Row(sequence[:-1], (), wanted, name), sequence[first:])


def _logits(loaded: LoadedModel, batch: Batch, token: Ints, end: int) -> Tensor:
    """[wanted, 3] in float64 on the device: logit of each place's token, of the end of turn, and log Z."""
    hidden, tokens = batch.last_states(loaded), to_device(token, loaded)
    some = max(1, LOGITS_AT_ONCE[loaded.device.type == "cuda"] // (2 * loaded.vocabulary))  # float64 takes twice
    parts: list[Tensor] = []
    for start in range(0, len(hidden), some):
        logits = loaded.head(hidden[start : start + some]).double()
        own = logits.gather(1, tokens[start : start + some, None])[:, 0]
        parts.append(torch.stack([own, logits[:, end], logits.logsumexp(-1)], dim=1))
    return torch.cat(parts)


def _ending(item: EndingItem, numbers: NDArray[np.float64], name: str) -> Ending:
    if not np.isfinite(numbers).all():
        raise ModelError(f"{name}: the model gives no finite log-probability. Its weights may be broken.")
    (marker, end, log_z), logprobs = numbers[0].tolist(), numbers[:, 0] - numbers[:, 2]
    return Ending(item, float(logprobs.sum()), end - log_z, marker, end, log_z, len(numbers))
