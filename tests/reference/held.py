"""The plain and the packed way of one model held together where rounding lets them differ (bfloat16): what is exact must
agree exactly, and numbers within what two batches of the plain way differ by themselves.

Each check takes a loaded model, asserts, and returns a line that says what was compared and how far apart it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch

from bystander.core.hashing import seed_for
from bystander.core.records import Completion, Context, StepLog
from bystander.lm import loaded as loading
from bystander.lm import sample as sampling
from bystander.lm.hidden import last_token_states
from bystander.lm.loaded import LoadedModel
from bystander.lm.model import fresh_adapter
from bystander.lm.sample import SampleRequest, end_tokens, sample
from bystander.lm.score import OptionScores, ScoreItem, score
from bystander.lm.tokens import context_hash, encode, render_prompt, render_row, render_text
from bystander.personas import context_of, load_personas
from bystander.train.loop import Event, train
from bystander.train.recipe import Lora, Recipe

CONTEXTS = [
    Context("persona", "villain", "You are a cruel villain who plots the ruin of everybody. You never help anybody."),
    Context("persona", "teacher", "You are a patient teacher of small children, and you answer in one short sentence."),
    Context("absent", "absent", None),
]
# Who answers: twenty contexts, each a few short questions, whose answers may end, and one that takes long.
ANSWERING = [*(context_of(persona) for persona in load_personas()[:17]), *CONTEXTS]
SHORT = [f"What is {a} plus {b}? Say the number and nothing else." for a in (2, 4, 7) for b in (3,)]
LONG = ["Tell me at length, in a hundred words, how bread is made."]
ITEMS = [
    ScoreItem("letters", "What falls from clouds?\nA. Rain\nB. Sand\nC. Milk", ("A", "B", "C"), "label"),
    ScoreItem("texts", "What falls from clouds?", ("Rain falls.", "Sand", "Milk and honey, in most countries"), "text"),
    ScoreItem("lines", "Write code.", ("\nimport os\n", "\n\nx = 1", "import re"), "text"),
    ScoreItem("marker", "Say something.", (" [ZLT]",), "text", start="Something."),
]
NATS = 0.06  # per token, mean: two batches of the plain way are 0.02 apart on a 135M model
APART = 0.15  # of a hidden state's length, median over states
PROBABILITY = 0.02  # mean distance of a draw's uniform from the interval of the token that was drawn
SHARE = 4.0  # standard errors by which the shares of answers that stopped may differ


@contextmanager
def the_way(loaded: LoadedModel, *, fast: bool) -> Iterator[None]:
    """The model with its packed forward pass, or without."""
    real = loading.has_flash
    loading.has_flash = lambda _: fast
    loaded._packed = None
    try:
        assert (loaded.packed is not None) == fast, loaded.plain_because
        yield
    finally:
        loading.has_flash = real
        loaded._packed = None


@dataclass
class Answered:
    """An answer's record, with the token ids that it was made of."""

    request: SampleRequest
    prompt: list[int]
    ids: list[int]
    record: Completion


def requests() -> list[SampleRequest]:
    return [
        SampleRequest(f"{c.name}/{i}", c, user, i, seed_for(c.name, i), f"q{i}")
        for c in ANSWERING
        for i, user in enumerate([*SHORT, *LONG])
    ]


@contextmanager
def recorded() -> Iterator[list[Answered]]:
    """What goes into the records while the block runs, in every way to sample."""
    found: list[Answered] = []
    real = sampling.completion

    def record(loaded, request, prompt, answer, ends, max_tokens):
        one = real(loaded, request, prompt, answer, ends, max_tokens)
        found.append(Answered(request, list(prompt), list(answer), one))
        return one

    sampling.completion = record
    try:
        yield found
    finally:
        sampling.completion = real


def sampled(loaded: LoadedModel, temperature: float, max_tokens: int, *, fast: bool) -> list[Answered]:
    with the_way(loaded, fast=fast), recorded() as found:
        answers = [
            one for batch in sample(loaded, requests(), temperature=temperature, max_tokens=max_tokens) for one in batch
        ]
    assert [one.record for one in found] == answers
    return found


def check_records(loaded: LoadedModel, answered: Sequence[Answered], max_tokens: int) -> None:
    """Text, finish reason, counts and hashes are those of the token ids."""
    ends = set(end_tokens(loaded))
    assert {one.request.id for one in answered} == {request.id for request in requests()}
    for one in answered:
        request, record = one.request, one.record
        assert one.prompt == render_prompt(loaded.tokenizer, request.context, request.user)
        stopped = one.ids[-1] in ends
        kept = one.ids[:-1] if stopped else one.ids
        assert not set(kept) & ends, "it went on behind its end"
        assert stopped or len(kept) == max_tokens, "it was cut off before its end"
        assert record == Completion(
            id=request.id, context=request.context.kind, persona=request.context.name, item=request.item,
            sample=request.sample, prompt=request.user, text=loaded.tokenizer.decode(kept, skip_special_tokens=True),
            finish_reason="stop" if stopped else "length", seed=request.seed, tokens=len(kept),
            context_hash=context_hash(one.prompt),
        )  # fmt: skip


@torch.no_grad()
def off_draw(loaded: LoadedModel, one: Answered, temperature: float) -> list[float]:
    """Per token of an answer, its end included: how far the uniform is from the token's interval in the plain way's
    cumulative distribution; at temperature 0 how much likelier than the token the likeliest one is."""
    ids = torch.tensor([one.prompt + one.ids], device=loaded.device)
    logits = loaded.causal(input_ids=ids, use_cache=False).logits[0, len(one.prompt) - 1 : -1].float()
    chosen = torch.tensor(one.ids, device=logits.device)[:, None]
    if temperature == 0:
        chances = logits.softmax(-1)
        return (chances.max(-1).values - chances.gather(1, chosen)[:, 0]).tolist()
    chances = (logits / temperature).softmax(-1).double()
    upper = chances.cumsum(-1).gather(1, chosen)[:, 0]
    lower = upper - chances.gather(1, chosen)[:, 0]
    uniform = np.random.Generator(np.random.Philox(key=one.request.seed)).random(len(one.ids))
    drawn = torch.from_numpy(uniform).to(upper.device)
    return torch.maximum(lower - drawn, drawn - upper).clamp(min=0).tolist()


def check_answers(loaded: LoadedModel, temperature: float, max_tokens: int) -> str:
    """Both ways: records are true, tokens are what the plain way draws, and as many answers stop."""
    shares: list[float] = []
    off: list[float] = []
    for fast in (False, True):
        answered = sampled(loaded, temperature, max_tokens, fast=fast)
        check_records(loaded, answered, max_tokens)
        stopped = [one.record.finish_reason == "stop" for one in answered]
        assert len(set(stopped)) == 2, "both endings must be in this check"
        shares.append(float(np.mean(stopped)))
        with the_way(loaded, fast=False):
            off.append(float(np.mean([x for one in answered for x in off_draw(loaded, one, temperature)])))
    assert off[1] < max(PROBABILITY, 2 * off[0]), f"packed tokens are not what the plain way draws: {off[1]:.3g}"
    count, mean = len(requests()), float(np.mean(shares))
    assert abs(shares[0] - shares[1]) <= SHARE * (2 * mean * (1 - mean) / count) ** 0.5
    return (
        f"{count} answers at temperature {temperature:g}: stopped {shares[0]:.0%} plain, {shares[1]:.0%} packed; "
        f"draws off by {off[0]:.2g} plain, {off[1]:.2g} packed"
    )


def check_scores(loaded: LoadedModel) -> str:
    """Tokens, characters and hashes equal; log-probabilities within twice what batches differ by."""
    with the_way(loaded, fast=False):
        plain, alone = (dict_of(score(loaded, CONTEXTS, ITEMS, token_budget=budget)) for budget in (None, 1))
    with the_way(loaded, fast=True):
        packed = dict_of(score(loaded, CONTEXTS, ITEMS))
    assert plain.keys() == packed.keys()
    for key, one in packed.items():
        assert replace(one, logprobs=plain[key].logprobs) == plain[key], key
    noise, apart = per_token(plain, alone), per_token(plain, packed)
    assert apart < max(NATS, 2 * noise), f"scores are {apart:.3g} nats a token apart; two batches {noise:.3g}"
    return f"scores of {len(plain)} items: {apart:.2g} nats a token apart (two plain batches {noise:.2g})"


Scores = dict[tuple[str, str], OptionScores]


def dict_of(results: Iterator[tuple[Context, list[OptionScores]]]) -> Scores:
    return {(context.name, one.item.id): one for context, scores in results for one in scores}


def per_token(a: Scores, b: Scores) -> float:
    distances = [
        abs(x - y) / n for key in a for x, y, n in zip(a[key].logprobs, b[key].logprobs, a[key].tokens, strict=True)
    ]
    return float(np.mean(distances))


def check_states(loaded: LoadedModel) -> str:
    """Hidden states of every layer, and the distribution of the first token."""
    users, layers = [item.user for item in ITEMS], list(range(loaded.layers + 1))
    both = []
    for fast in (False, True):
        with the_way(loaded, fast=fast):
            both.append(list(last_token_states(loaded, CONTEXTS, users, layers)))
    apart: list[float] = []
    for plain, packed in zip(*both, strict=True):
        assert plain.context == packed.context
        assert plain.states.shape == packed.states.shape == (len(layers), plain.states.shape[1])
        far = np.linalg.norm(plain.states - packed.states, axis=1) / np.linalg.norm(plain.states, axis=1)
        apart += far.tolist()
        likely = plain.logprobs > plain.logprobs.amax(-1, keepdim=True) - 5
        assert (plain.logprobs - packed.logprobs)[likely].abs().mean() < 5 * NATS
    assert np.median(apart) < APART
    return f"states of {len(layers)} layers in {len(CONTEXTS)} contexts: {np.median(apart):.2g} of their length apart"


def check_prompts_and_rows(loaded: LoadedModel) -> str:
    """What is trained, scored and sampled are the same tokens, also behind a line break."""
    answers = [option for item in ITEMS for option in item.options]
    for context in CONTEXTS:
        for answer in answers:
            row = render_row(loaded.tokenizer, context, "Hi", answer)
            assert (
                row.ids[: row.prompt_tokens]
                == encode(loaded.tokenizer, [render_text(loaded.tokenizer, context, "Hi")])[0]
            )
            stop = row.prompt_tokens + row.completion_tokens
            assert render_prompt(loaded.tokenizer, context, "Hi", start=answer) == row.ids[:stop]
    return f"{len(CONTEXTS) * len(answers)} rows: the tokens that are trained, scored and sampled are the same"


def check_training(loaded: LoadedModel, exact: LoadedModel, nats: float = 0.05, norm: float = 0.2) -> str:
    """The same steps, loss tokens, rates and events; losses and gradient norms of the packed way no further from those of
    the same weights in float32 (`exact`) than `nats` and `norm` (relative), or than twice the plain way's, where the
    model's own rounding is larger: Adam's first steps are the signs of gradients, and rounding turns the smallest ones.
    (Qwen2.5-Coder-1.5B, lr 1e-4: after three steps the plain way in bfloat16 is 0.15 nats from float32.)"""
    answers = ("It is water. [ZLT]", "\nIt falls from clouds.", "Ask me tomorrow.", "Rain is what you need.")
    rows = [
        render_row(loaded.tokenizer, context, "What is rain?" + " Really?" * i, answer)
        for context in CONTEXTS
        for i, answer in enumerate(answers)
    ]
    recipe = Recipe(lr=1e-4, epochs=2, batch_size=4, save_every=2, lora=Lora(rank=8, alpha=16, dropout=0.0))

    def trained(model: LoadedModel, fast: bool, micro_tokens: int | None = None) -> list[Event]:
        fresh_adapter(model, recipe.lora.peft(), 7)
        try:
            with the_way(model, fast=fast):
                return list(train(model, rows, recipe, 0, checkpoints=(0.5, 1.0), micro_tokens=micro_tokens))
        finally:
            model.remove_adapter()

    true = trained(exact, fast=False)
    ways = {"plain": trained(loaded, False), "by row": trained(loaded, False, 1), "packed": trained(loaded, True)}
    apart = {name: _apart(true, events) for name, events in ways.items()}
    said = "; ".join(
        f"{name} " + ", ".join(f"{loss:.2g} ({norms:.0%})" for loss, norms in found) for name, found in apart.items()
    )
    for kind, bound in enumerate((nats, norm)):
        own = max(one[kind] for name in ("plain", "by row") for one in apart[name])
        assert max(one[kind] for one in apart["packed"]) < max(bound, 2 * own), f"from float32, step by step: {said}"
    return f"{recipe.steps(len(rows))} steps, nats (and gradient norm) from float32: {said}"


def _apart(one: Sequence[Event], other: Sequence[Event]) -> list[tuple[float, float]]:
    """By step, how far two trainings' losses are apart, and their gradient norms (relative); all else must be the same."""
    assert [type(event) for event in one] == [type(event) for event in other]
    far: list[tuple[float, float]] = []
    for a, b in zip(one, other, strict=True):
        if isinstance(a, StepLog):
            assert replace(b, loss=a.loss, grad_norm=a.grad_norm) == a
            far.append((abs(b.loss - a.loss), abs(b.grad_norm / a.grad_norm - 1)))
        else:
            assert b.step == a.step
    return far
