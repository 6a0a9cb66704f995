"""Scoring: questions per second of the choice grid, against whole forward passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from bystander.lm.score import OptionScores, ScoreItem, score
from bystander.lm.tokens import encode, encode_with_ends, render_text
from bystander.personas import context_of, load_personas

Mode = Literal["label", "text"]
# Largest difference in nats at which results count as equal: float32 as the scorer is tested; in bfloat16 one unit in
# the last place of a log-probability of -10 is 0.03, and a sum over tokens has several.
LOGPROB_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 1.0}


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
    the last place's logits alone. `prompt_tokens`: the questions whose prompts come nearest to so many tokens. Raises
    ModelError where the two ways disagree."""
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
        results.append(_score_mode(loaded, bar, mode, contexts, dataset, questions, min(plain, len(contexts)), way))
    return results


def _score_mode(
    loaded: LoadedModel, bar: Bar, mode: Mode, contexts: Sequence[Context], dataset: str, questions: Sequence[Question],
    plain: int, way: PlainScorer,
) -> SpeedComparison:  # fmt: skip
    asked = [_item(question, mode) for question in questions]
    tokens = _mean_tokens(loaded, contexts, asked)
    bar.start(f"score, {mode} mode: {len(contexts)} personas x {len(asked)} questions", len(contexts) + 1)
    way.score(loaded, contexts[0], asked[:2])  # warm-up of both ways
    list(score(loaded, contexts[:1], asked))
    bar.advance()
    plain_times: list[float] = []
    our_times: list[float] = []
    pairs: list[tuple[list[float], OptionScores]] = []
    every = max(1, len(contexts) // plain)
    for index, context in enumerate(contexts):
        ours, seconds = timed(loaded, lambda c=context: next(iter(score(loaded, [c], asked)))[1])
        our_times.append(seconds)
        if index % every == 0 and len(plain_times) < plain:
            slow, seconds = timed(loaded, lambda c=context: way.score(loaded, c, asked))
            plain_times.append(seconds)
            pairs += zip(slow, ours, strict=True)
        bar.advance()
    rates = [len(asked) / median(times) for times in (plain_times, our_times)]
    difference = max(abs(a - b) for slow, found in pairs for a, b in zip(slow, found.logprobs, strict=True))
    different = sum(int(np.argmax(slow)) != int(np.argmax(found.logprobs)) for slow, found in pairs)
    if difference > LOGPROB_TOLERANCE[loaded.dtype]:
        raise ModelError(
            f"bench score, {mode} mode: the two ways differ by {difference:.2g} nats, more than {LOGPROB_TOLERANCE[loaded.dtype]:g}; "
            "the scorer is not to be trusted on this device"
        )
    return SpeedComparison(
        f"score, {mode} mode, {dataset}, prompts of {tokens:.0f} tokens", "questions", way.name,
        rates[0], len(plain_times), rates[1], len(our_times), rates[1] / rates[0], difference, different, len(pairs),
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
