"""Many adapters at once on a GPU in bfloat16: grouped kernels, compiled layers and CUDA graphs against each training
alone.

    python3 -m pytest tests/gpu/test_many_adapters_gpu.py -m gpu -W default
"""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config

from bystander.core.records import StepLog
from bystander.lm.adapter_stack import AdapterStack, shape_of_adapter
from bystander.lm.attention import Bounds, attend
from bystander.lm.model import LoadedModel, fresh_adapter
from bystander.lm.stacked import StackedForward, Tokens, grouped, why_no_grouped
from bystander.lm.tokens import RenderedRow
from bystander.train.loop import Checkpoint, TrainState
from bystander.train.many import Failed, Finished, Job, Started, train_many
from bystander.train.many_graphs import GraphedPasses
from bystander.train.many_packed import PackedPasses
from bystander.train.many_passes import canary_distance, fill_at_random
from bystander.train.many_plain import Work
from bystander.train.recipe import Lora, Recipe
from tests.reference.many import train_each
from tests.support.small_tokenizer import CHATML, core_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("default"),  # other versions of torch and transformers warn of other things
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
LORA = Lora(rank=16, alpha=32, dropout=0.0)
RECIPE = Recipe(lr=1e-3, epochs=2, batch_size=8, lora=LORA, save_every=3)
# Nats a token by which a training's losses may differ in bfloat16, of about 7: two batchings of one training differ by
# 0.01 after as many steps at this rate.
APART = 0.03


@pytest.fixture(scope="module")
def loaded():
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core_of("qwen2"), eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = CHATML
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=max(1024, len(tokenizer)), hidden_size=256, intermediate_size=768, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=1024,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).cuda()
    loaded = LoadedModel(model, tokenizer, name="small", base_id="small", revision="", base_hash="0")
    assert loaded.packed is not None, loaded.plain_because
    return loaded


def rows(seed, count=24, longest=120):
    g = np.random.default_rng(seed)
    lengths = g.integers(20, longest, count)
    return [RenderedRow(g.integers(0, 1000, n).tolist(), [i >= n - 9 for i in range(n)], n - 9, 8, 1) for n in lengths]


def jobs(count=4, dropout=0.0):
    recipe = RECIPE.model_copy(update={"lora": LORA.model_copy(update={"dropout": dropout})})
    return [Job(f"job{n}", rows(n), recipe, 40 + n, 70 + n) for n in range(count)]


def run(loaded, group, **settings):
    losses, others = {one.name: [] for one in group}, {}
    for name, event in train_many(loaded, group, **settings):
        if isinstance(event, StepLog):
            losses[name].append(event.loss)
        elif isinstance(event, (Started, Failed, Finished)):
            others[name, type(event)] = event
    return losses, others


def largest(one, other):
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def stack_of(loaded, slots=3, dropout=0.1):
    shape = shape_of_adapter(fresh_adapter(loaded, LORA.model_copy(update={"dropout": dropout}).peft(), 0))
    loaded.remove_adapter()
    stack = AdapterStack(shape, slots, loaded.device, torch.bfloat16)
    fill_at_random(stack, torch.Generator(loaded.device).manual_seed(1))
    stack.values.copy_(stack.working)
    return stack


def test_grouped_products_and_their_gradients_are_each_groups_own():
    torch.manual_seed(0)
    x = torch.randn(200, 64, device="cuda", dtype=torch.bfloat16)
    buffer = torch.randn(3, 4 * 64 * 32, device="cuda", dtype=torch.bfloat16)
    w = buffer[:, 64 * 32 : 2 * 64 * 32].view(3, 32, 64)  # a view with steps, as of a stack
    ends = torch.tensor([5, 6, 200], device="cuda", dtype=torch.int32)
    keys = torch.zeros(200, device="cuda", dtype=torch.int32)
    out = torch.randn(200, 32, device="cuda", dtype=torch.bfloat16)
    found = []
    for spans, dtype in ((None, torch.bfloat16), ((5, 1, 194), torch.float32)):
        leaf, weight = x.detach().to(dtype).requires_grad_(), w.detach().to(dtype).requires_grad_()
        y = grouped(leaf, weight, Tokens(keys, ends, spans))
        found.append([y, *torch.autograd.grad(y, (leaf, weight), out.to(dtype))])
    for ours, reference in zip(*found, strict=True):
        torch.testing.assert_close(ours.float(), reference, atol=0.15, rtol=0.02)


def test_a_nan_of_one_group_stays_there():
    x = torch.ones(64, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    w = torch.ones(3, 16, 64, device="cuda", dtype=torch.bfloat16)
    w[1] = float("nan")
    w.requires_grad_()
    ends = torch.tensor([20, 37, 64], device="cuda", dtype=torch.int32)
    y = grouped(x, w, Tokens(torch.zeros(64, device="cuda", dtype=torch.int32), ends, None))
    assert y.isfinite().all(1).tolist() == [not 20 <= i < 37 for i in range(64)]
    upstream = torch.ones_like(y)
    upstream[20:37] = float("nan")
    gx, gw = torch.autograd.grad(y, (x, w), upstream)
    assert gx.isfinite().all(1).tolist() == [not 20 <= i < 37 for i in range(64)]
    assert gw.isfinite().flatten(1).all(1).tolist() == [True, False, True]


def test_attention_takes_empty_sequences_and_a_longest_that_is_too_long():
    g = torch.Generator("cuda").manual_seed(0)
    q, k, v = (torch.randn(50, 4, 64, device="cuda", dtype=torch.bfloat16, generator=g) for _ in range(3))
    found = []
    for offsets, longest in (([0, 20, 50], 30), ([0, 20, 50, 50, 50], 256)):
        starts = torch.tensor(offsets, device="cuda", dtype=torch.int32)
        leaves = [x.detach().requires_grad_() for x in (q, k, v)]
        y = attend(*leaves, Bounds(starts, starts, longest, longest), 0.125)
        found.append([y, *torch.autograd.grad(y.float().pow(2).sum(), leaves)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-2, rtol=1e-2)


def test_compiled_layers_and_graphs_give_the_gradients_of_products_in_a_loop(loaded):
    """Dropout on: the draw is the same on all ways. Both must be as near to each other as bfloat16 lets them."""
    stack = stack_of(loaded)
    assert why_no_grouped(loaded.device, loaded.dtype, [16, 256]) == ""
    eager = StackedForward(loaded.causal, stack, compile_layers=False)
    compiled = StackedForward(loaded.causal, stack, compile_layers=True)
    ways = {
        "looped": PackedPasses(loaded, stack, eager, 10_000, looped=True),
        "grouped": PackedPasses(loaded, stack, eager, 10_000),
        "compiled": PackedPasses(loaded, stack, compiled, 10_000),
        "graphs": GraphedPasses(loaded, stack, compiled, 10_000),
    }
    for turn in range(3):  # the second and third turns replay what the first captured
        works = [Work(slot, rows(10 * turn + slot, 12), 100, 7, turn) for slot in (0, 2)]
        found = {}
        for name, passes in ways.items():
            losses = passes.run(works).clone()
            found[name] = losses, stack.gradients.clone()
        for name in ways:
            assert largest(found[name][0].tolist(), found["looped"][0].tolist()) < 0.02, name
            for slot in (0, 2):
                ours, reference = found[name][1][slot], found["looped"][1][slot]
                assert float((ours - reference).norm() / reference.norm()) < 0.15, (name, turn, slot)


def test_the_canary_sees_that_kernels_agree(loaded):
    stack = stack_of(loaded)
    eager = StackedForward(loaded.causal, stack, compile_layers=False)
    compiled = StackedForward(loaded.causal, stack, compile_layers=True)
    looped = PackedPasses(loaded, stack, eager, 10_000, looped=True)
    assert canary_distance(loaded, stack, PackedPasses(loaded, stack, compiled, 10_000), looped) < 0.05


@pytest.mark.parametrize("graphs", [False, True])
def test_each_training_is_what_it_is_alone(loaded, graphs):
    group = jobs()
    alone = train_each(loaded, group)
    losses, others = run(loaded, group, slots=3, graphs=graphs)
    assert ("CUDA graphs" if graphs else "grouped products") in others["job0", Started].passes
    for name, (events, _) in alone.items():
        reference = [event.loss for event in events if isinstance(event, StepLog)]
        assert largest(losses[name], reference) < APART
        assert losses[name][-1] < losses[name][0]


def test_mates_passes_and_graphs_do_not_change_dropout(loaded):
    group = jobs(3, dropout=0.3)
    together, _ = run(loaded, group)
    for settings in ({"pass_tokens": 900}, {"graphs": True}):
        other, _ = run(loaded, group[::-1], **settings)
        for name, losses in together.items():
            assert largest(losses, other[name]) < APART
    without, _ = run(loaded, jobs(3))
    assert largest(together["job0"], without["job0"]) > APART


@pytest.mark.parametrize("graphs", [False, True])
def test_a_failure_a_probe_and_a_state_leave_the_others_as_they_are(loaded, graphs):
    group = jobs(3)
    alone = {name: events for name, (events, _) in train_each(loaded, group).items()}
    group[1] = replace(group[1], recipe=RECIPE.model_copy(update={"lr": 1e30, "max_grad_norm": 1e30}))
    group[0] = replace(group[0], checkpoints=(0.5,))
    losses, states = {one.name: [] for one in group}, {}
    for name, event in train_many(loaded, group, graphs=graphs):
        if isinstance(event, StepLog):
            losses[name].append(event.loss)
        elif isinstance(event, Checkpoint):
            with torch.no_grad():
                loaded.body(input_ids=torch.arange(9, device="cuda")[None])
        elif isinstance(event, (Failed, TrainState)):
            states.setdefault(name, event)
    assert isinstance(states["job1"], Failed)
    for name in ("job0", "job2"):
        reference = [event.loss for event in alone[name] if isinstance(event, StepLog)]
        assert largest(losses[name], reference) < APART
    resumed = train_each(loaded, [replace(group[2], state=states["job2"])])["job2"][0]
    assert largest([e.loss for e in resumed if isinstance(e, StepLog)], losses["job2"][3:]) < APART


@pytest.mark.parametrize("graphs", [False, True])
def test_a_step_does_not_wait_for_the_device(loaded, graphs):
    """But for reading its numbers, which is an event's wait and no synchronization of the device."""
    events = train_many(loaded, [replace(one, rows=rows(1, 200)) for one in jobs(3, dropout=0.05)], graphs=graphs)
    steps = (name for name, event in events if isinstance(event, StepLog))
    for _ in range(12):  # compiling and capturing
        next(steps)
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            for _ in range(6):
                next(steps)
    finally:
        torch.cuda.set_sync_debug_mode("default")
        events.close()
    waits = [str(one.message) + f" {one.filename}:{one.lineno}" for one in seen if "synchroniz" in str(one.message)]
    assert not waits, waits
