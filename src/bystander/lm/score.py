"""Log-probabilities of options under contexts: the grid contexts x items x options, each shared part computed once."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bystander.core.errors import ModelError
from bystander.core.records import NOTHING_EARLIER, Context, Earlier
from bystander.lm.forward import run
from bystander.lm.joint import joined
from bystander.lm.loaded import LoadedModel
from bystander.lm.rows import Batch, Budget, Compute, Ints, Row, check_window, common_prefix, to_device
from bystander.lm.tokens import Continuation, Continuations, Tokenizer, context_hash, encode, render_texts

# Logits held at a time, on a CPU and on a GPU (64 and 256 MiB in float32): memory does not grow with the batch.
LOGITS_AT_ONCE = (1 << 24, 1 << 26)
# Groups of contexts whose work is handed to the device before the one before them is waited for: a GPU has its next
# group while the host tokenizes the one after.
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
class _Answers:
    """What an item's options are behind a prompt: `shared` is what all begin with up to the first token that is scored,
    `continued` the rest of each but for its last token, after which nothing is read. `wanted` are the places that are
    read, counted from the prompt's end.

    Target k is token `token[k]` at the wanted place `place[k]`, and belongs to the option whose first target is the last
    of `first` not after k; each option has `scored` of them.
    """

    shared: Ints
    continued: tuple[Ints, ...]
    wanted: Ints
    place: Ints
    token: Ints
    first: Ints
    scored: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """An item under a context: its row, and what is read there."""

    item: ScoreItem
    row: Row
    answers: _Answers
    hash: str


Planned = tuple[Context, list[Plan]]
Queued = tuple[list[Planned], list[tuple[Batch, Tensor]]]
Scored = tuple[Context, list[OptionScores]]


def score(
    loaded: LoadedModel, contexts: Sequence[Context], items: Sequence[ScoreItem], *, token_budget: int | None = None,
    done: Collection[str] = (), together: bool = True,
) -> Iterator[Scored]:  # fmt: skip
    """Score all items under each context, in the given order of contexts and of items: see `score_each`."""
    asked = [(context, items) for context in contexts]
    return score_each(loaded, asked, token_budget=token_budget, done=done, together=together)


def score_each(
    loaded: LoadedModel, asked: Sequence[tuple[Context, Sequence[ScoreItem]]], *, token_budget: int | None = None,
    done: Collection[str] = (), together: bool = True,
) -> Iterator[Scored]:  # fmt: skip
    """Score under each context its own items, in the given order.

    On a GPU as many contexts as fill a batch are computed together (not `together`: one at a time), and come one after
    another before the group after the next is begun. What a context gives does not depend on the others but for the
    rounding of another batch. `done` are names of contexts that are not wanted again: they only decide, with all others,
    which contexts are together, so that who goes on after a break gets the numbers of an unbroken run.

    `token_budget` is the number of tokens a batch, padding included; None takes the device's default; it halves when
    memory runs out. Raises ModelError naming the item whose label is not one token, whose labels are not distinct, or
    that is longer than the model's window.
    """
    if any(not items for _, items in asked):
        raise ModelError("nothing to score: the list of items is empty.")
    left = [one for one in asked if one[0].name not in done]
    if loaded.packed is None or not left:
        asked = left
    budget = Budget.for_model(loaded, token_budget)
    ready = planned(loaded, asked)
    queued: deque[Queued] = deque()
    try:
        for group in joined(loaded, ready, budget) if together else ([one] for one in ready):
            own = [one for one, _ in group]
            if all(context.name in done for context, _ in own):
                continue
            read = reader(loaded, [plan for _, plans in own for plan in plans])
            queued.append((own, run(loaded, [rows for _, rows in group], budget, read)))
            if len(queued) > AHEAD[loaded.device.type]:
                yield from collected(queued.popleft(), done)
    except ModelError:
        while queued:  # what was done before the fault is not lost
            yield from collected(queued.popleft(), done)
        raise
    while queued:
        yield from collected(queued.popleft(), done)


def planned(
    loaded: LoadedModel, asked: Iterable[tuple[Context, Sequence[ScoreItem]]]
) -> Iterator[tuple[Planned, list[Row]]]:
    """Each context's items as tokens. Raises ModelError as `score_each`."""
    known = _Known(loaded.tokenizer)
    for context, items in asked:
        plans = _plan(loaded.tokenizer, known, context, items)
        rows = [plan.row for plan in plans]
        check_window(loaded, rows)
        yield (context, plans), rows


def _plan(tokenizer: Tokenizer, known: _Known, context: Context, items: Sequence[ScoreItem]) -> list[Plan]:
    users: dict[Earlier, dict[str, None]] = {}
    for item in items:
        users.setdefault(item.earlier, {})[item.user] = None
    prompts: dict[tuple[Earlier, str], tuple[str, list[int]]] = {}
    for earlier, asked in users.items():
        texts = render_texts(tokenizer, earlier.under(context), list(asked))
        for user, text, ids in zip(asked, texts, encode(tokenizer, texts), strict=True):
            prompts[earlier, user] = text, ids
    return [_plan_item(known, item, context, *prompts[item.earlier, item.user]) for item in items]


def _plan_item(known: _Known, item: ScoreItem, context: Context, text: str, prompt: list[int]) -> Plan:
    name = f"item {item.id!r} under {context.name!r}"
    answers = known.get(item, text, prompt, name)
    prefix = np.concatenate([np.array(prompt, dtype=np.int64), answers.shared])
    row = Row(prefix, answers.continued, answers.wanted + len(prompt), name)
    return Plan(item, row, answers, context_hash(row.prefix))


class _Known:
    """Items' answers, made once for all prompts that end alike."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._continuations = Continuations(tokenizer)
        self._made: dict[tuple[ScoreItem, tuple[int, ...]], _Answers] = {}

    def get(self, item: ScoreItem, text: str, prompt: list[int], name: str) -> _Answers:
        """The answers behind the prompt `text` with token ids `prompt`; an error says `name`."""
        key = item, self._continuations.end(prompt)
        if key not in self._made:
            if not item.options:
                raise ModelError(f"{name}: it has no options to score.")
            each = [self._continuations.get(text, prompt, item.start, option, name) for option in item.options]
            self._made[key] = _answers(item, each, name)
        return self._made[key]


def _answers(item: ScoreItem, each: Sequence[Continuation], name: str) -> _Answers:
    tails = [np.array(one.ids, dtype=np.int64) for one in each]
    shared = min(common_prefix(tails), *(len(one.ids) - one.scored for one in each))
    if item.mode == "label":
        _check_labels(item, each, shared, name)
    rests = [tail[shared:] for tail in tails]
    place: list[Ints] = []
    start = shared
    for rest, one in zip(rests, each, strict=True):
        own = np.arange(start, start + len(rest) - 1, dtype=np.int64)
        seen_from = np.concatenate([np.array([shared - 1]), own])  # where each token of `rest` is predicted
        place.append(seen_from[len(rest) - one.scored :])
        start += len(rest) - 1
    wanted, index = np.unique(np.concatenate(place), return_inverse=True)
    counts = [one.scored for one in each]
    return _Answers(
        shared=tails[0][:shared],
        continued=tuple(rest[:-1] for rest in rests) if any(len(rest) > 1 for rest in rests) else (),
        wanted=wanted,
        place=index.astype(np.int64),
        token=np.concatenate([rest[len(rest) - n :] for rest, n in zip(rests, counts, strict=True)]),
        first=np.cumsum([0, *counts[:-1]]),
        scored=tuple(counts),
    )


def _check_labels(item: ScoreItem, each: Sequence[Continuation], shared: int, name: str) -> None:
    seen: dict[int, str] = {}
    for label, one in zip(item.options, each, strict=True):
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


def reader(loaded: LoadedModel, plans: Sequence[Plan]) -> Compute:
    """Batch -> log-probabilities of all its targets [n], float32, left on the device."""

    def read(batch: Batch) -> Tensor:
        picked = [plans[i] for i in batch.rows]
        offsets = np.cumsum([0, *(len(plan.row.wanted) for plan in picked[:-1])])
        place = np.concatenate([plan.answers.place + offset for plan, offset in zip(picked, offsets, strict=True)])
        token = np.concatenate([plan.answers.token for plan in picked])
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


def collected(queued: Queued, done: Collection[str]) -> Iterator[Scored]:
    """Waits for the device; contexts that are `done` are left out."""
    contexts, results = queued
    values = torch.cat([found for _, found in results]).cpu().numpy().astype(np.float64)
    order = [i for batch, _ in results for i in batch.rows]
    plans = [plan for _, own in contexts for plan in own]
    ends = np.cumsum([len(plans[i].answers.token) for i in order])
    by_row = dict(zip(order, np.split(values, ends[:-1]), strict=True))
    number = 0
    for context, own in contexts:
        mine = range(number, number := number + len(own))
        if context.name not in done:
            yield context, [_scores(plan, by_row[i]) for plan, i in zip(own, mine, strict=True)]


def _scores(plan: Plan, values: NDArray[np.float64]) -> OptionScores:
    """Sums each option's tokens in float64, always in the same order."""
    sums: NDArray[np.float64] = np.add.reduceat(values, plan.answers.first)
    if not np.isfinite(sums).all():
        raise ModelError(f"{plan.row.name}: the model gives no finite log-probability. Its weights may be broken.")
    chars = tuple(len(option) for option in plan.item.options)
    return OptionScores(plan.item, tuple(sums.tolist()), plan.answers.scored, chars, plan.hash)
