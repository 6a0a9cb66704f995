"""Scoring: questions per second of the choice grid, against whole forward passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Literal

import numpy as np
import torch

from bystander.behaviors.capability import load_set
from bystander.bench.comparison import SpeedComparison, timed
from bystander.core.errors import DataError, ModelError
from bystander.core.progress import Bar
from bystander.core.records import Context, Question
from bystander.data import choice_answer, choice_user, draw_questions
from bystander.data.choice_source import NotFetched
from bystander.lm.model import LoadedModel
from bystander.lm.score import ScoreItem, score
from bystander.lm.tokens import encode, encode_with_ends, render_text
from bystander.personas import context_of, load_personas

Mode = Literal["label", "text"]
# Largest difference in nats at which results count as equal: float32 as the scorer is tested; in bfloat16 one unit in
# the last place of a log-probability of -10 is 0.03, and a sum over tokens has several.
LOGPROB_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 1.0}
JOINT_TURNS = 3  # over all contexts, where batches hold several


@dataclass(frozen=True, slots=True)
class PlainScorer:
    """A plain way to score: the options' log-probabilities of every item under one context."""

    name: str
    score: Callable[[LoadedModel, Context, Sequence[ScoreItem]], list[list[float]]]


def modes_of(mode: str) -> tuple[Mode, ...]:
    """The modes that "label", "text" or "both" names. Raises DataError for anything else."""
    known: dict[str, tuple[Mode, ...]] = {"label": ("label",), "text": ("text",), "both": ("label", "text")}
    if mode not in known:
        raise DataError(f"--mode is {mode!r}; use label, text or both")
    return known[mode]


def bench_score(
    loaded: LoadedModel, bar: Bar, *, personas: int = 20, items: int = 40, modes: Sequence[Mode] = ("label", "text"),
    plain_personas: int | None = None, batched: bool = False, prompt_tokens: int | None = None,
) -> list[SpeedComparison]:  # fmt: skip
    """Questions per second of the choice grid. The plain way is one whole forward per question in label mode and one
    per option in text mode, all logits, as a script with transformers does it; it is timed under `plain_personas` of
    the personas (None: all in label mode, 5 in text mode, whose forwards are four times as many). ARC-Challenge where
    it is to be had, else the built-in bank. `batched`: the plain way of label mode runs length-sorted batches of 64 with
    the last place's logits alone. `prompt_tokens`: the questions whose prompts come nearest to so many tokens. Where
    batches hold several contexts (a GPU), a second comparison is with batches of one. Raises ModelError where two ways
    disagree."""
    contexts = [context_of(persona) for persona in load_personas()[:personas]]
    dataset, everything = _questions()
    if prompt_tokens is None:
        questions = draw_questions(everything, items, "bench")
    else:
        questions = _long(loaded, contexts, everything, items, prompt_tokens)
    results: list[SpeedComparison] = []
    for mode in modes:
        plain = plain_personas or (personas if mode == "label" else 5)
        way = BY_OPTION if mode == "text" else IN_BATCHES if batched else BY_QUESTION
        asked = [_item(question, mode) for question in questions]
        tokens = _mean_tokens(loaded, contexts, asked)
        work = f"score, {mode} mode, {dataset}, prompts of {tokens:.0f} tokens"
        results += _score_mode(loaded, bar, work, contexts, asked, min(plain, len(contexts)), way)
    return results


@dataclass(slots=True)
class _Timed:
    """What one way found, by context, and the rates of its turns in questions per second."""

    name: str
    rates: list[float] = field(default_factory=list[float])
    found: dict[str, list[list[float]]] = field(default_factory=dict[str, list[list[float]]])

    def turn(self, loaded: LoadedModel, contexts: int, work: Callable[[], list[tuple[Context, list[list[float]]]]]):
        """Time the work on so many contexts."""
        done, seconds = timed(loaded, work)
        self.found |= {context.name: values for context, values in done}
        self.rates.append(contexts * len(done[0][1]) / seconds)


def _score_mode(
    loaded: LoadedModel, bar: Bar, work: str, contexts: Sequence[Context], asked: Sequence[ScoreItem], plain: int,
    way: PlainScorer,
) -> list[SpeedComparison]:  # fmt: skip
    """The plain way against ours, and batches of one context against joint ones, where there are any; the ways take
    turns. Joint batches are timed over all contexts, else a turn is one context."""
    joint = loaded.packed is not None
    pieces = [list(contexts)] * JOINT_TURNS if joint else [[context] for context in contexts]
    plain_on = list(contexts[:: max(1, len(contexts) // plain)])[:plain]
    bar.start(f"{work}: {len(contexts)} personas x {len(asked)} questions", len(pieces) + 1)
    way.score(loaded, contexts[0], asked[:2])  # warm-up of all ways
    for together in (True, False) if joint else (True,):
        _ours(loaded, contexts[:8] if joint else contexts[:1], asked, together)
    bar.advance()
    slow, ours, alone = _Timed(way.name), _Timed("ours"), _Timed("batches of one context")
    for turn, piece in enumerate(pieces):
        ours.turn(loaded, len(piece), lambda p=piece: _ours(loaded, p, asked, together=True))
        if joint:
            alone.turn(loaded, len(piece), lambda p=piece: _ours(loaded, p, asked, together=False))
        for context in plain_on[turn :: len(pieces)]:
            slow.turn(loaded, 1, lambda c=context: [(c, way.score(loaded, c, asked))])
        bar.advance()
    return [_comparison(loaded, work, other, ours) for other in ([slow, alone] if joint else [slow])]


def _ours(
    loaded: LoadedModel, contexts: Sequence[Context], asked: Sequence[ScoreItem], together: bool
) -> list[tuple[Context, list[list[float]]]]:
    results = score(loaded, contexts, asked, together=together)
    return [(context, [list(one.logprobs) for one in scores]) for context, scores in results]


def _comparison(loaded: LoadedModel, work: str, other: _Timed, ours: _Timed) -> SpeedComparison:
    pairs = [pair for name, found in other.found.items() for pair in zip(found, ours.found[name], strict=True)]
    difference = max(abs(a - b) for one, found in pairs for a, b in zip(one, found, strict=True))
    different = sum(int(np.argmax(one)) != int(np.argmax(found)) for one, found in pairs)
    if difference > LOGPROB_TOLERANCE[loaded.dtype]:
        raise ModelError(
            f"bench {work}: {other.name} and ours differ by {difference:.2g} nats, more than "
            f"{LOGPROB_TOLERANCE[loaded.dtype]:g}; the scorer is not to be trusted on this device"
        )
    rates = median(other.rates), median(ours.rates)
    return SpeedComparison(
        work, "questions", other.name, rates[0], len(other.rates), rates[1], len(ours.rates), rates[1] / rates[0],
        difference, different, len(pairs),
    )  # fmt: skip


def _questions() -> tuple[str, list[Question]]:
    """ARC-Challenge, or the shorter questions of the bank where neither the Hub nor a local copy is at hand."""
    try:
        return "arc", load_set("arc", Path())
    except NotFetched:
        return "bank", load_set("bank", Path())


def _item(question: Question, mode: Mode) -> ScoreItem:
    options = question.labels if mode == "label" else tuple(
        choice_answer(question, index, "text") for index in range(len(question.options))
    )  # fmt: skip
    return ScoreItem(question.id, choice_user(question, mode), options, mode)


def _long(
    loaded: LoadedModel, contexts: Sequence[Context], everything: Sequence[Question], count: int, tokens: int
) -> list[Question]:
    """`count` questions whose prompts under these contexts come nearest to `tokens` tokens on average."""
    lengths = [_mean_tokens(loaded, contexts[:1], [_item(question, "label")]) for question in everything]
    shift = _mean_tokens(loaded, contexts, [_item(everything[0], "label")]) - lengths[0]
    ranked = [everything[i] for i in np.argsort(lengths, kind="stable")]
    means = np.convolve(np.sort(lengths), np.ones(count) / count, mode="valid") + shift
    start = int(np.abs(means - tokens).argmin())
    return ranked[start : start + count]


def _mean_tokens(loaded: LoadedModel, contexts: Sequence[Context], items: Sequence[ScoreItem]) -> float:
    """Tokens of a prompt, averaged over contexts and items."""
    own = loaded.tokenizer
    alone = list(map(len, encode(own, [render_text(own, context, items[0].user) for context in contexts])))
    users = list(map(len, encode(own, [render_text(own, contexts[0], item.user) for item in items])))
    return float(np.mean(alone) - alone[0] + np.mean(users))


@torch.no_grad()
def _plain_batches(loaded: LoadedModel, context: Context, items: Sequence[ScoreItem]) -> list[list[float]]:
    """Length-sorted batches of 64 rows padded on the right; the labels' log-probabilities at each row's last place."""
    prompts = encode(loaded.tokenizer, [render_text(loaded.tokenizer, context, item.user) for item in items])
    order = sorted(range(len(items)), key=lambda i: len(prompts[i]))
    found: list[list[float]] = [[] for _ in items]
    for start in range(0, len(order), 64):
        chosen = order[start : start + 64]
        last = torch.tensor([len(prompts[i]) - 1 for i in chosen], device=loaded.device)
        ids = torch.zeros((len(chosen), int(last.max()) + 1), dtype=torch.long)
        for row, i in enumerate(chosen):
            ids[row, : len(prompts[i])] = torch.tensor(prompts[i])
        hidden = loaded.body(input_ids=ids.to(loaded.device))[torch.arange(len(chosen), device=loaded.device), last]
        labels = [[tokens[0] for tokens in encode(loaded.tokenizer, items[i].options)] for i in chosen]
        union = sorted({token for row in labels for token in row})
        logprobs = loaded.head(hidden).float().log_softmax(-1)[:, union].tolist()
        for row, i in enumerate(chosen):
            found[i] = [logprobs[row][union.index(token)] for token in labels[row]]
    return found


@torch.no_grad()
def _plain_label(loaded: LoadedModel, context: Context, items: Sequence[ScoreItem]) -> list[list[float]]:
    """One forward per question; the labels' log-probabilities at its last place."""
    results: list[list[float]] = []
    for item in items:
        text = render_text(loaded.tokenizer, context, item.user)
        ids = torch.tensor(encode(loaded.tokenizer, [text]), device=loaded.device)
        last = loaded.causal(input_ids=ids, use_cache=False).logits[0, -1].float().log_softmax(-1)
        labels = [encode(loaded.tokenizer, [label])[0][0] for label in item.options]
        results.append(last[labels].tolist())
    return results


@torch.no_grad()
def _plain_text(loaded: LoadedModel, context: Context, items: Sequence[ScoreItem]) -> list[list[float]]:
    """One forward per option; its tokens' log-probabilities summed."""
    results: list[list[float]] = []
    for item in items:
        before = render_text(loaded.tokenizer, context, item.user)
        sums: list[float] = []
        for option in item.options:
            ids, ends = encode_with_ends(loaded.tokenizer, [before + option])
            row = torch.tensor(ids, device=loaded.device)
            logprobs = loaded.causal(input_ids=row, use_cache=False).logits[0].float().log_softmax(-1)
            own = [at for at, (_, end) in enumerate(ends[0]) if end > len(before)]
            sums.append(float(logprobs[[at - 1 for at in own], row[0, own]].sum()))
        results.append(sums)
    return results


BY_QUESTION = PlainScorer("one whole forward per question", _plain_label)
BY_OPTION = PlainScorer("one whole forward per option", _plain_text)
IN_BATCHES = PlainScorer("length-sorted batches of 64", _plain_batches)
