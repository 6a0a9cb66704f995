"""Log-probabilities of options under contexts: the grid contexts x items x options, each shared part computed once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bystander.core.errors import ModelError
from bystander.core.records import NOTHING_EARLIER, Context, Earlier
from bystander.lm.forward import Batch, Budget, Compute, Ints, Row, common_prefix, run, to_device
from bystander.lm.loaded import LoadedModel
from bystander.lm.tokens import Continuation, Continuations, Tokenizer, context_hash, encode, render_texts

# Logits held at a time, on a CPU and on a GPU (64 and 256 MiB in float32): memory does not grow with the batch.
LOGITS_AT_ONCE = (1 << 24, 1 << 26)
# Contexts whose work is handed to the device before the one before them is waited for: a GPU has its next context while
# the host tokenizes the one after.
AHEAD = {"cpu": 0, "cuda": 1}
ScoreMode = Literal["label", "text"]


@dataclass(frozen=True, slots=True)
class ScoreItem:
    """A user turn and the options whose log-probability is asked for.

    `start` is a forced beginning of the answer. `label`: each option is one token at that place, all distinct, or it
    is an error. `text`: options of any length. `earlier`: what the user turn brings of its own conversation.
    """

    id: str
    user: str
    options: tuple[str, ...]
    mode: ScoreMode
    start: str = ""
    earlier: Earlier = NOTHING_EARLIER


@dataclass(frozen=True, slots=True)
class OptionScores:
    """Per option of `item`: log-probability (natural log, summed over the option's tokens, over the full vocabulary),
    number of tokens, number of characters. `context_hash` is that of the prompt's tokens, `start` included."""

    item: ScoreItem
    logprobs: tuple[float, ...]
    tokens: tuple[int, ...]
    chars: tuple[int, ...]
    context_hash: str


@dataclass(frozen=True, slots=True)
class _Plan:
    """An item under a context: its row, and what is read at the row's wanted places.

    Target k is token `token[k]` at the row's wanted place `place[k]`, and belongs to the option whose first target is
    the last of `first` not after k.
    """

    item: ScoreItem
    row: Row
    place: Ints
    token: Ints
    first: Ints
    scored: tuple[int, ...]
    hash: str


_Queued = tuple[Context, list[_Plan], list[tuple[Batch, Tensor]]]


def score(
    loaded: LoadedModel, contexts: Sequence[Context], items: Sequence[ScoreItem], *, token_budget: int | None = None
) -> Iterator[tuple[Context, list[OptionScores]]]:
    """Score all items under each context, one context at a time, items in the given order.

    A context's result does not depend on the other contexts. `token_budget` is the number of padded tokens a batch;
    None takes the device's default; it halves when memory runs out. Raises ModelError naming the item whose label is
    not one token, whose labels are not distinct, or that is longer than the model's window.
    """
    if not items:
        raise ModelError("nothing to score: the list of items is empty.")
    budget = Budget.for_model(loaded, token_budget)
    continuations = Continuations(loaded.tokenizer)
    queued: deque[_Queued] = deque()
    try:
        for context in contexts:
            plans = _plan(loaded.tokenizer, continuations, context, items)
            results = run(loaded, [plan.row for plan in plans], budget, _reader(loaded, plans))
            queued.append((context, plans, results))
            if len(queued) > AHEAD[loaded.device.type]:
                yield _collected(queued.popleft())
    except ModelError:
        while queued:  # what was done before the fault is not lost
            yield _collected(queued.popleft())
        raise
    while queued:
        yield _collected(queued.popleft())


def _collected(queued: _Queued) -> tuple[Context, list[OptionScores]]:
    context, plans, results = queued
    return context, _collect(plans, results)


def _plan(
    tokenizer: Tokenizer, continuations: Continuations, context: Context, items: Sequence[ScoreItem]
) -> list[_Plan]:
    users: dict[Earlier, dict[str, None]] = {}
    for item in items:
        users.setdefault(item.earlier, {})[item.user] = None
    prompts: dict[tuple[Earlier, str], tuple[str, Ints]] = {}
    for earlier, asked in users.items():
        texts = render_texts(tokenizer, earlier.under(context), list(asked))
        for user, text, ids in zip(asked, texts, encode(tokenizer, texts), strict=True):
            prompts[earlier, user] = text, np.array(ids, dtype=np.int64)
    return [_plan_item(continuations, context, item, *prompts[item.earlier, item.user]) for item in items]


def _plan_item(continuations: Continuations, context: Context, item: ScoreItem, text: str, prompt: Ints) -> _Plan:
    """Prefix: prompt, and what all options begin with up to the first token that is scored. Continuations: the rest of
    each option but for its last token, after which nothing is read."""
    name = f"item {item.id!r} under {context.name!r}"
    if not item.options:
        raise ModelError(f"{name}: it has no options to score.")
    ids = prompt.tolist()
    known = [continuations.get(text, ids, item.start, option, name) for option in item.options]
    tails = [np.array(one.ids, dtype=np.int64) for one in known]
    shared = min(common_prefix(tails), *(len(one.ids) - one.scored for one in known))
    if item.mode == "label":
        _check_labels(item, known, shared, name)
    prefix = np.concatenate([prompt, tails[0][:shared]])
    rests = [tail[shared:] for tail in tails]
    place: list[Ints] = []
    start = len(prefix)
    for rest, one in zip(rests, known, strict=True):
        own = np.arange(start, start + len(rest) - 1, dtype=np.int64)
        seen_from = np.concatenate([np.array([len(prefix) - 1]), own])  # where each token of `rest` is predicted
        place.append(seen_from[len(rest) - one.scored :])
        start += len(rest) - 1
    everywhere = np.concatenate(place)
    wanted, index = np.unique(everywhere, return_inverse=True)
    continued = tuple(rest[:-1] for rest in rests) if any(len(rest) > 1 for rest in rests) else ()
    counts = [one.scored for one in known]
    return _Plan(
        item=item,
        row=Row(prefix, continued, wanted, name),
        place=index.astype(np.int64),
        token=np.concatenate([rest[len(rest) - n :] for rest, n in zip(rests, counts, strict=True)]),
        first=np.cumsum([0, *counts[:-1]]),
        scored=tuple(counts),
        hash=context_hash(prefix.tolist()),
    )


def _check_labels(item: ScoreItem, known: Sequence[Continuation], shared: int, name: str) -> None:
    seen: dict[int, str] = {}
    for label, one in zip(item.options, known, strict=True):
        if len(one.ids) - shared != 1 or one.scored != 1:
            raise ModelError(
                f"{name}: the label {label!r} is {len(one.ids) - shared} tokens at the answer's place, not one. Use "
                "other labels, another start of the answer, or mode `text`."
            )
        token = one.ids[-1]
        if token in seen:
            raise ModelError(
                f"{name}: labels {seen[token]!r} and {label!r} are the same token there. Use distinct ones."
            )
        seen[token] = label


def _reader(loaded: LoadedModel, plans: Sequence[_Plan]) -> Compute:
    """Batch -> log-probabilities of all its targets [n], float32, left on the device."""

    def read(batch: Batch) -> Tensor:
        picked = [plans[i] for i in batch.rows]
        offsets = np.cumsum([0, *(len(plan.row.wanted) for plan in picked[:-1])])
        place = np.concatenate([plan.place + offset for plan, offset in zip(picked, offsets, strict=True)])
        token = np.concatenate([plan.token for plan in picked])
        hidden = batch.last_states(loaded)
        return _log_probabilities(loaded, hidden, place, token)

    return read


def _log_probabilities(loaded: LoadedModel, hidden: Tensor, place: Ints, token: Ints) -> Tensor:
    """log p(token[k] | hidden[place[k]]) for each k, in float32; logits exist for a few places at a time."""
    order = np.argsort(place, kind="stable")
    places, tokens, back = to_device(place[order], loaded), to_device(token[order], loaded), to_device(order, loaded)
    some = LOGITS_AT_ONCE[loaded.device.type == "cuda"] // loaded.vocabulary
    cuts = range(0, len(hidden), max(1, some))
    edges = np.searchsorted(place[order], [*cuts, len(hidden)])
    found = torch.empty(len(token), dtype=torch.float32, device=hidden.device)
    for start, low, high in zip(cuts, edges[:-1], edges[1:], strict=True):
        # Not logsumexp: on a CPU its float32 sum over 49,152 logits is off by 8e-6 nats a token, always to one side.
        logprobs = loaded.head(hidden[start : start + cuts.step]).float().log_softmax(-1)
        found[back[low:high]] = logprobs[places[low:high] - start, tokens[low:high]]
    return found


def _collect(plans: Sequence[_Plan], results: Sequence[tuple[Batch, Tensor]]) -> list[OptionScores]:
    """Waits for the device, and sums each option's tokens in float64, always in the same order."""
    values = torch.cat([found for _, found in results]).cpu().numpy().astype(np.float64)
    scores: dict[int, OptionScores] = {}
    start = 0
    for index in (i for batch, _ in results for i in batch.rows):
        plan = plans[index]
        own = values[start : start + len(plan.token)]
        start += len(plan.token)
        sums: NDArray[np.float64] = np.add.reduceat(own, plan.first)
        if not np.isfinite(sums).all():
            raise ModelError(f"{plan.row.name}: the model gives no finite log-probability. Its weights may be broken.")
        chars = tuple(len(option) for option in plan.item.options)
        scores[index] = OptionScores(plan.item, tuple(sums.tolist()), plan.scored, chars, plan.hash)
    return [scores[i] for i in range(len(plans))]
