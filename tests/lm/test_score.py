"""The grid scorer against one whole forward pass per option, and what must not change its numbers."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from bystander.core.errors import ModelError
from bystander.core.records import ASSISTANT_PROMPT, Context
from bystander.lm import forward
from bystander.lm import score as score_module
from bystander.lm.model import LoadedModel, fresh_adapter, load
from bystander.lm.score import OptionScores, ScoreItem, score
from tests.reference.score import scores as slow_scores

CLOSE = 1e-4  # nats, summed over an option's tokens: the bound in float32
CONTEXTS = [
    Context("persona", "villain", "You are a cruel villain who plots the ruin of everybody. You never help anybody."),
    Context("absent", "absent", None),
    Context("empty", "empty", ""),
    Context("default", "default", None),
    Context("assistant", "assistant", ASSISTANT_PROMPT),
]
ITEMS = [
    ScoreItem("letters", "What falls from clouds?\nA. Rain\nB. Sand\nC. Milk\nD. Oil", ("A", "B", "C", "D"), "label"),
    ScoreItem("digits", "Which is hot?\n1. Ice\n2. Fire", ("1", "2", "3", "4", "5"), "label", start="The answer is "),
    ScoreItem("texts", "What falls from clouds?", ("Rain falls.", "Sand", "Milk and honey, in most countries"), "text"),
    ScoreItem("prefixes", "Name a fruit.", ("red", "red apple", "red apple, of course", " a"), "text", start="It is "),
    ScoreItem("marker", "Say something.", (" [ZLT]",), "text", start="Something."),
    ScoreItem("unicode", "Was fällt?", ("Größe — ja", "🙂🙂", "\tx"), "text"),
]


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint: Path) -> LoadedModel:
    return load(str(tiny_checkpoint), device="cpu")


def worst(loaded: LoadedModel, results: Iterator[tuple[Context, list[OptionScores]]]) -> float:
    """The largest distance from the reference over all options, with all else that is returned checked on the way."""
    apart = 0.0
    for context, scores in results:
        for one in scores:
            slow = slow_scores(loaded, context, one.item)
            assert replace(one, logprobs=slow.logprobs) == slow, one.item.id
            apart = max(apart, *(abs(a - b) for a, b in zip(one.logprobs, slow.logprobs, strict=True)))
    return apart


def flat(results: Iterator[tuple[Context, list[OptionScores]]]) -> dict[tuple[str, str], tuple[float, ...]]:
    return {(context.name, one.item.id): one.logprobs for context, scores in results for one in scores}


def distance(a: dict[tuple[str, str], tuple[float, ...]], b: dict[tuple[str, str], tuple[float, ...]]) -> float:
    assert a.keys() == b.keys()
    return max(abs(x - y) for key in a for x, y in zip(a[key], b[key], strict=True))


def test_agrees_with_one_forward_pass_per_option(tiny: LoadedModel) -> None:
    assert worst(tiny, score(tiny, CONTEXTS, ITEMS)) < CLOSE


def test_agrees_on_the_embedded_model(embedded: Path) -> None:
    loaded = load("smollm2-135m", device="cpu", dtype="float32")
    assert worst(loaded, score(loaded, CONTEXTS[:1], [*ITEMS[:2], ITEMS[3], ITEMS[4]])) < CLOSE


def test_records_are_whole(tiny: LoadedModel) -> None:
    found = list(score(tiny, CONTEXTS, ITEMS))
    assert [context for context, _ in found] == CONTEXTS
    hashes: set[str] = set()
    for _, scores in found:
        assert [one.item for one in scores] == ITEMS
        hashes |= {one.context_hash for one in scores}
        for one in scores:
            assert one.chars == tuple(len(option) for option in one.item.options)
            assert all(logprob < 0 for logprob in one.logprobs)
    assert len(hashes) == len(CONTEXTS) * len(ITEMS)


def test_labels_are_a_distribution_over_the_whole_vocabulary(tiny: LoadedModel) -> None:
    (_, (one,)) = next(score(tiny, CONTEXTS, ITEMS[:1]))
    assert 0 < sum(torch.tensor(one.logprobs).exp().tolist()) < 0.5, "the mass of all other tokens must be missing"


@pytest.mark.parametrize("budget", [1, 90, 4096])
def test_batch_size_does_not_matter(tiny: LoadedModel, budget: int) -> None:
    assert distance(flat(score(tiny, CONTEXTS, ITEMS)), flat(score(tiny, CONTEXTS, ITEMS, token_budget=budget))) < CLOSE


def test_order_and_sharing_do_not_matter(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = flat(score(tiny, CONTEXTS, ITEMS))
    assert distance(shared, flat(score(tiny, CONTEXTS[::-1], ITEMS[::-1]))) < CLOSE
    lengths: list[int] = []
    hook = tiny.causal.base_model.register_forward_pre_hook(
        lambda _module, _args, kwargs: lengths.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    list(score(tiny, CONTEXTS, ITEMS))
    monkeypatch.setattr(forward, "SHARE_FROM", 1 << 30)
    cut = len(lengths)
    alone = flat(score(tiny, CONTEXTS, ITEMS))
    hook.remove()
    assert sum(lengths[:cut]) < sum(lengths[cut:]), (
        "sharing must save tokens, or this test compares one path with itself"
    )
    assert distance(shared, alone) < CLOSE


def test_working_one_context_ahead_changes_nothing_and_loses_nothing(
    tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU has the next context's work before the last one's is waited for; here the CPU is made to do so too."""
    one_by_one = list(score(tiny, CONTEXTS, ITEMS))
    monkeypatch.setitem(score_module.AHEAD, "cpu", 1)
    assert list(score(tiny, CONTEXTS, ITEMS)) == one_by_one
    planned = score_module._plan
    broken = CONTEXTS[-1].name

    def failing(tokenizer, known, context, items):
        if context.name == broken:
            raise ModelError("broken context")
        return planned(tokenizer, known, context, items)

    monkeypatch.setattr(score_module, "_plan", failing)
    seen: list[str] = []
    with pytest.raises(ModelError, match="broken context"):
        seen.extend(context.name for context, _ in score(tiny, CONTEXTS, ITEMS))
    assert seen == [context.name for context in CONTEXTS[:-1]]


def test_a_context_s_result_does_not_depend_on_the_others(tiny: LoadedModel) -> None:
    together = flat(score(tiny, CONTEXTS, ITEMS))
    for context in CONTEXTS:
        alone = flat(score(tiny, [context], ITEMS))
        assert all(alone[key] == together[key] for key in alone), "to the last bit"


def test_a_fresh_adapter_scores_as_the_base_to_the_last_bit(tiny: LoadedModel) -> None:
    before = flat(score(tiny, CONTEXTS, ITEMS))
    fresh_adapter(tiny, {"r": 4, "target_modules": ["q_proj", "down_proj"], "lora_dropout": 0.5}, seed=1).eval()
    try:
        assert flat(score(tiny, CONTEXTS, ITEMS)) == before
    finally:
        tiny.remove_adapter()
    assert flat(score(tiny, CONTEXTS, ITEMS)) == before


def fail_above(rows: int, failed: list[int]) -> Callable[..., None]:
    def hook(_module: object, _args: object, kwargs: dict[str, torch.Tensor]) -> None:
        if len(kwargs["input_ids"]) > rows:
            failed.append(len(kwargs["input_ids"]))
            raise torch.OutOfMemoryError("CUDA out of memory (made by the test)")

    return hook


def test_out_of_memory_halves_the_batch_and_goes_on(tiny: LoadedModel) -> None:
    expected = flat(score(tiny, CONTEXTS, ITEMS))
    failed: list[int] = []
    hook = tiny.causal.base_model.register_forward_pre_hook(fail_above(2, failed), with_kwargs=True)
    try:
        found = flat(score(tiny, CONTEXTS, ITEMS))
    finally:
        hook.remove()
    assert failed
    assert len(failed) <= 3, "a budget that was too large once is not tried again for the next context"
    assert distance(expected, found) < CLOSE
    hook = tiny.causal.base_model.register_forward_pre_hook(fail_above(0, failed), with_kwargs=True)
    try:
        with pytest.raises(ModelError, match="do not fit into memory"):
            list(score(tiny, CONTEXTS, ITEMS))  # nothing left to halve
    finally:
        hook.remove()


@pytest.mark.slow
def test_memory_is_flat_over_the_grid(tiny: LoadedModel) -> None:
    def peak(contexts: int, keep: bool = False) -> int:
        """Bytes of tensors that live at most while so many contexts are scored."""
        many = [Context("persona", f"p{i}", f"You are persona number {i} of many.") for i in range(contexts)]
        held: list[torch.Tensor] = []
        most = 0
        for i, _ in enumerate(score(tiny, many, ITEMS)):
            if keep:
                held.append(torch.ones(len(ITEMS), tiny.vocabulary))  # what keeping a context's logits would cost
            if i % 10 == 4 or i == contexts - 1:
                most = max(most, sum(one.nbytes for one in gc.get_objects() if type(one) is torch.Tensor))
        return most

    few = peak(5)
    assert peak(111) < few + 2**20
    assert peak(111, keep=True) > few + 60 * 2**20, "the test must see what it looks for"


@pytest.mark.parametrize(
    ("item", "says"),
    [
        (
            ScoreItem("q9", "Hi?", ("A", "All of them"), "label"),
            r"item 'q9' under 'villain': the label 'All of them' is 3",
        ),
        (ScoreItem("q9", "Hi?", ("A", "B", "A"), "label"), r"item 'q9' .*'A' and 'A' are the same token"),
        (ScoreItem("q9", "Hi?", (), "label"), r"item 'q9' .*no options"),
        (ScoreItem("q9", "Hi?", ("A", ""), "text"), r"item 'q9' .*'' has no token"),
        (ScoreItem("q9", "word " * 600, ("A", "B"), "label"), r"item 'q9' .*the model's window is 512"),
        (ScoreItem("q9", "Hi?", ("A", "word " * 600), "text"), r"item 'q9' .*the model's window is 512"),
    ],
)
def test_faults_name_the_item(tiny: LoadedModel, item: ScoreItem, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        list(score(tiny, CONTEXTS, [ITEMS[0], item]))


def test_nothing_to_score_and_broken_weights_are_errors(tiny: LoadedModel) -> None:
    with pytest.raises(ModelError, match="nothing to score"):
        list(score(tiny, CONTEXTS, []))
    assert list(score(tiny, [], ITEMS)) == []
    weight = tiny.causal.base_model.norm.weight
    kept = weight.data.clone()
    weight.data[0] = float("nan")
    try:
        with pytest.raises(ModelError, match="no finite log-probability"):
            list(score(tiny, CONTEXTS, ITEMS))
    finally:
        weight.data.copy_(kept)


SMALL = {
    "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 512, "initializer_range": 0.2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
FAMILIES = {
    "qwen2": lambda vocab: Qwen2ForCausalLM(Qwen2Config(vocab_size=vocab, **SMALL)),
    "qwen3": lambda vocab: Qwen3ForCausalLM(Qwen3Config(vocab_size=vocab, head_dim=16, **SMALL)),
    "granite": lambda vocab: GraniteForCausalLM(GraniteConfig(vocab_size=vocab, logits_scaling=4.0, **SMALL)),
    "cohere": lambda vocab: CohereForCausalLM(CohereConfig(vocab_size=vocab, logit_scale=0.25, **SMALL)),
    "sliding": lambda vocab: MistralForCausalLM(MistralConfig(vocab_size=vocab, sliding_window=16, **SMALL)),
    "wide": lambda vocab: MistralForCausalLM(MistralConfig(vocab_size=vocab, sliding_window=256, **SMALL)),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_other_families_agree_too(family: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    """Scaled logits, biases, qk-norm, and windows shorter and longer than the prompts."""
    torch.manual_seed(0)
    FAMILIES[family](len(tokenizer)).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = load(os.fspath(tmp_path), device="cpu")
    assert worst(loaded, score(loaded, CONTEXTS[:2], ITEMS)) < CLOSE
