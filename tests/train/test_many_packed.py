"""Packed passes of several adapters (what a GPU runs) in float32 on a CPU: against each training alone, with products in
a loop and with torch's grouped product; dropout depends on the training alone; a NaN stays where it is."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen3Config

from bystander.core.records import StepLog
from bystander.lm import loaded as models
from bystander.lm import stacked
from bystander.lm.adapter_stack import AdapterStack, shape_of_adapter
from bystander.lm.model import fresh_adapter, load
from bystander.lm.stacked import StackedForward, Tokens, grouped, keyed_dropout, why_no_grouped
from bystander.lm.tokens import RenderedRow
from bystander.train import many, many_graphs, many_packed, many_passes, many_room
from bystander.train.many import Failed, Finished, Job, Started, train_many
from bystander.train.many_graphs import GraphedPasses
from bystander.train.many_packed import PackedPasses, Sizes, cut, keyed
from bystander.train.many_plain import PlainPasses, Work
from bystander.train.recipe import Lora, Recipe
from tests.reference.many import train_each

GIB = 2**30
LORA = Lora(rank=8, alpha=16, dropout=0.0)
RECIPE = Recipe(lr=1e-2, epochs=2, batch_size=6, lora=LORA, save_every=3)


@pytest.fixture(scope="module")
def loaded(tiny_checkpoint):
    return load(str(tiny_checkpoint))


@pytest.fixture(scope="module")
def fast(tiny_checkpoint):
    return load(str(tiny_checkpoint))


@pytest.fixture(params=["grouped", "looped"])
def packed(request, fast, monkeypatch):
    """The same model as on a GPU, with either kind of product."""
    monkeypatch.setattr(models, "has_flash", lambda _: True)
    monkeypatch.setattr(many_room, "free_bytes", lambda _: 20 * GIB)
    monkeypatch.setattr(stacked, "compiled", lambda: (stacked.before, stacked.between, stacked.after))
    if request.param == "grouped":
        monkeypatch.setattr(many_passes, "why_no_grouped", lambda *_: "")
    fast.remove_adapter()
    assert fast.packed is not None, fast.plain_because
    return fast


def rows(seed, count=16, longest=40):
    g = np.random.default_rng(seed)
    lengths = g.integers(12, longest, count)
    return [RenderedRow(g.integers(0, 500, n).tolist(), [i >= n - 6 for i in range(n)], n - 6, 5, 1) for n in lengths]


def jobs(count=3, dropout=0.0):
    recipe = RECIPE.model_copy(update={"lora": LORA.model_copy(update={"dropout": dropout})})
    return [Job(f"job{n}", rows(n), recipe, 40 + n, 70 + n) for n in range(count)]


def run(loaded, group, **settings):
    losses, weights, others = {one.name: [] for one in group}, {}, {}
    for name, event in train_many(loaded, group, **settings):
        if isinstance(event, StepLog):
            losses[name].append(event.loss)
        elif isinstance(event, Finished):
            weights[name] = {n: p.detach().clone() for n, p in event.adapter.named_parameters() if p.requires_grad}
        elif isinstance(event, (Started, Failed)):
            others[name] = event
    return losses, weights, others


def apart(ours, reference):
    square = sum(float((ours[name] - reference[name]).norm() ** 2) for name in ours)
    return (square / sum(float(value.norm() ** 2) for value in reference.values())) ** 0.5


@pytest.mark.parametrize("pass_tokens", [None, 150])
def test_each_training_is_what_it_is_alone(loaded, packed, request, pass_tokens):
    group = [*jobs(), replace(jobs(4)[3], rows=rows(8, 7, 30))]
    alone = train_each(loaded, group)
    losses, weights, others = run(packed, group, slots=3, pass_tokens=pass_tokens)
    kind = request.node.callspec.params["packed"]
    assert ("grouped products" if kind == "grouped" else "products in a loop") in others["job0"].passes
    for name, (events, values) in alone.items():
        assert losses[name] == pytest.approx([e.loss for e in events if isinstance(e, StepLog)], abs=1e-5)
        assert apart(weights[name], values) < 1e-3


@pytest.mark.parametrize("packed", ["grouped"], indirect=True)
def test_dropout_is_the_trainings_own(packed):
    """Neither mates, nor slots, nor how a batch is cut into passes change it."""
    group = jobs(3, dropout=0.3)
    together, _, _ = run(packed, group)
    cut_up, _, _ = run(packed, group[::-1], pass_tokens=150)
    single, _, _ = run(packed, group[1:2])
    without, _, _ = run(packed, jobs(3))
    for name, losses in together.items():
        assert cut_up[name] == pytest.approx(losses, abs=1e-5)
        assert max(abs(a - b) for a, b in zip(losses, without[name], strict=True)) > 1e-2
    assert single["job1"] == pytest.approx(together["job1"], abs=1e-5)


def test_a_failed_training_leaves_the_others_as_they_are(loaded, packed):
    group = jobs(3)
    group[1] = replace(group[1], recipe=RECIPE.model_copy(update={"lr": 1e30, "max_grad_norm": 1e30}))
    for order in (group, group[::-1], [group[0], group[2], group[1]]):  # the failed one in the last slot too
        losses, weights, others = run(packed, order)
        assert isinstance(others["job1"], Failed)
        for name, (events, values) in train_each(loaded, [group[0], group[2]]).items():
            assert losses[name] == pytest.approx([e.loss for e in events if isinstance(e, StepLog)], abs=1e-5)
            assert apart(weights[name], values) < 1e-3


@pytest.mark.parametrize("packed", ["grouped"], indirect=True)
def test_passes_of_coarse_sizes_that_are_run_again_are_the_same(packed, monkeypatch):
    """What CUDA graphs need: one set of input tensors for each shape, filled anew; here a replay computes as ever."""
    replays, captured = [], []

    def capture(self, batch):
        own = batch.clone()
        self.differentiate(own)  # as a warm-up leaves gradients behind
        losses = torch.zeros(self._stack.slots)
        captured.append(own.sizes)

        def replay():
            replays.append(own.sizes)
            losses.copy_(self.differentiate(own))

        return many_graphs._Captured(own, losses, replay)

    monkeypatch.setattr(GraphedPasses, "_capture", capture)
    monkeypatch.setattr(many_graphs, "SIZES", Sizes(tokens=128, places=64, sequences=8, longest=64))
    group = jobs(3, dropout=0.1)
    plain, weights, _ = run(packed, group, pass_tokens=300)
    graphed, graphed_weights, others = run(packed, group, pass_tokens=300, graphs=True)
    assert "CUDA graphs" in others["job0"].passes
    assert len(captured) == len(set(captured)) < len(replays)
    for name, losses in plain.items():
        assert graphed[name] == pytest.approx(losses, abs=1e-5)
        assert apart(graphed_weights[name], weights[name]) < 1e-3


@pytest.mark.parametrize("packed", ["grouped"], indirect=True)
def test_numbers_that_are_read_late_are_the_same(packed, monkeypatch):
    """On a GPU a step's losses are read while the next is under way."""
    at_once, _, _ = run(packed, jobs(2))
    monkeypatch.setitem(many.LATE, "cpu", 2)
    late, _, _ = run(packed, jobs(2))
    assert late == at_once
    group = jobs(3)
    group[1] = replace(group[1], recipe=RECIPE.model_copy(update={"lr": 1e30, "max_grad_norm": 1e30}))
    failing, _, others = run(packed, group)  # it goes on for a step or two before anybody knows
    assert isinstance(others["job1"], Failed)
    assert len(failing["job1"]) == others["job1"].step
    mates, _, _ = run(packed, group[::2])
    for name, losses in mates.items():
        assert failing[name] == pytest.approx(losses, abs=1e-5)


def grads(passes, stack, works):
    losses = passes.run(works)
    return losses, stack.gradients.clone()


@pytest.mark.parametrize("config", [Qwen2Config, Qwen3Config])
@pytest.mark.parametrize("maps", [["q_proj", "v_proj", "down_proj"], None])
def test_gradients_of_the_family_on_any_of_its_maps(loaded, monkeypatch, config, maps):
    """Biases, normed queries, and adapters on some maps alone: against hooks on the model's own modules."""
    torch.manual_seed(0)
    small = config(
        vocab_size=500, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=256,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(small).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if "norm" in name or "bias" in name:
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    other = models.LoadedModel(model, loaded.tokenizer, name="small", base_id="small", revision="", base_hash="0")
    lora = LORA if maps is None else LORA.model_copy(update={"target_modules": maps})
    shape = shape_of_adapter(fresh_adapter(other, lora.peft(), 0))
    other.remove_adapter()
    stack = AdapterStack(shape, 3, other.device, torch.float32)
    torch.manual_seed(1)
    stack.values.normal_(0, 0.1)
    works = [Work(slot, rows(slot, 5), 30, 7, 0) for slot in (0, 2)]  # the middle slot is free
    plain = grads(PlainPasses(other, stack, 1000, 1000), stack, works)
    forward = StackedForward(model, stack, compile_layers=False)
    for looped in (False, True):
        for sizes in (Sizes(), Sizes(tokens=256, places=32, sequences=8, longest=64)):
            ours = grads(PackedPasses(other, stack, forward, 120, looped=looped, sizes=sizes), stack, works)
            torch.testing.assert_close(ours[0], plain[0], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(ours[1], plain[1], atol=1e-5, rtol=1e-4)
    assert plain[1][0].norm() > 1e-2
    assert not plain[1][1].any()


def test_an_adapter_on_other_maps_takes_the_plain_pass(loaded):
    shape = shape_of_adapter(fresh_adapter(loaded, LORA.peft(), 0))
    loaded.remove_adapter()
    odd = replace(shape, places=(*shape.places, replace(shape.places[0], name="strange", module="model.strange")))
    with pytest.raises(ValueError, match="more than the seven maps"):
        StackedForward(loaded.causal, AdapterStack(odd, 1, loaded.device, torch.float32), compile_layers=False)


@pytest.mark.parametrize("packed", ["grouped"], indirect=True)
def test_a_product_that_computes_something_else_is_found_out(packed, monkeypatch):
    right = stacked.grouped_mm
    monkeypatch.setattr(stacked, "grouped_mm", lambda x, w, offs: right(x, w.flip(0), offs=offs))  # others' adapters
    losses, _, others = run(packed, jobs(2))
    assert "differ" in others["job0"].passes
    monkeypatch.setattr(stacked, "grouped_mm", right)
    assert losses == run(packed, jobs(2))[0]


def test_memory_that_runs_out_makes_passes_smaller(loaded, packed, monkeypatch):
    whole, _, _ = run(packed, jobs(2))
    tokens = []
    right = PackedPasses.differentiate

    def small(self, batch):
        tokens.append(len(batch.laid.ids))
        if tokens[-1] > 256:
            raise torch.OutOfMemoryError("pretend")
        return right(self, batch)

    monkeypatch.setattr(PackedPasses, "differentiate", small)
    again, _, _ = run(packed, jobs(2))
    assert sum(n > 256 for n in tokens) <= 2  # the smaller size is kept
    for name, losses in whole.items():
        assert again[name] == pytest.approx(losses, abs=1e-5)


def test_the_canary_leaves_the_stack_as_it_was(packed, monkeypatch):
    found = []
    right = many_passes.canary_distance
    monkeypatch.setattr(
        many_passes, "canary_distance", lambda *args: found.append((right(*args), args[1])) or found[-1][0]
    )
    next(train_many(packed, jobs(2)))
    for apart_, _ in found:
        assert apart_ < 1e-5


def test_grouped_products_are_each_groups_own():
    torch.manual_seed(0)
    x, w = torch.randn(11, 8, dtype=torch.float64), torch.randn(3, 4, 8, dtype=torch.float64)
    ends = torch.tensor([4, 4, 11], dtype=torch.int32)
    keys = torch.zeros(11, dtype=torch.int32)
    expected = torch.cat([x[:4] @ w[0].T, x[4:] @ w[2].T])
    torch.testing.assert_close(grouped(x, w, Tokens(keys, ends, (4, 0, 7))), expected)
    torch.testing.assert_close(grouped(x.float(), w.float(), Tokens(keys, ends, None)), expected.float())


def test_keyed_dropout_drops_its_share_and_is_decided_by_key_salt_and_channel():
    keys = torch.from_numpy(np.concatenate([row.keys for row in keyed(Work(0, rows(0, 60), 1, 3, 5))]))
    x = torch.ones(len(keys), 512)
    salt = torch.tensor([12345], dtype=torch.int32)
    dropped = keyed_dropout(x, keys, salt, 0.1)
    count = x.numel()
    share = float((dropped == 0).float().mean())
    assert share == pytest.approx(0.1, abs=5 * (0.09 / count) ** 0.5)
    assert dropped.max() == pytest.approx(1 / 0.9)
    for axis, size in ((0, len(keys)), (1, 512)):  # no channel and no token is dropped more often than by chance
        rate = (dropped == 0).float().mean(axis)
        assert float(rate.std()) == pytest.approx((0.09 / size) ** 0.5, rel=0.15)
    some = torch.randperm(len(keys))[:7]
    assert torch.equal(keyed_dropout(x[:7], keys[some], salt, 0.1), dropped[some])
    other = keyed_dropout(x, keys, salt + 1, 0.1)
    both = float(((dropped == 0) & (other == 0)).float().mean())
    assert both == pytest.approx(0.01, abs=5 * (0.01 / count) ** 0.5)


def test_keys_differ_between_seeds_steps_and_tokens():
    seen = [row.keys for seed in (1, 2) for step in (0, 1) for row in keyed(Work(0, rows(0, 50), 1, seed, step))]
    keys = np.concatenate(seen)
    assert len(np.unique(keys)) > len(keys) - 3


def test_the_same_bits_are_mixed_on_host_and_device():
    bits = np.random.default_rng(0).integers(0, 2**32, 1000, dtype=np.uint32)
    device = stacked.mix(torch.from_numpy(bits.view(np.int32))).numpy().view(np.uint32)
    assert np.array_equal(many_packed._mix(bits), device)


def test_a_batch_is_cut_evenly_and_whole():
    own = keyed(Work(0, rows(0, 40), 1, 0, 0))
    parts = cut(own, 3)
    assert [row for part in parts for row in part] == own
    sums = [sum(len(row.ids) for row in part) for part in parts]
    assert max(sums) - min(sums) <= 2 * 40


def test_room_follows_memory(packed, monkeypatch):
    monkeypatch.setattr(many_room, "token_bytes", lambda _: 2**20)
    parameters = 2**28  # 6 GiB an adapter in float32 with two working copies
    for gib, slots in ((40, 5), (200, 16)):
        monkeypatch.setattr(many_room, "free_bytes", lambda _, gib=gib: gib * GIB)
        room = many_room.room_for(packed, parameters, 100, None, None, None)
        assert room.slots == slots
        assert many_room.LEAST_TOKENS <= room.pass_tokens <= many_room.MOST_TOKENS
        assert slots * 6 * GIB + room.pass_tokens * 2**20 <= gib * GIB
    monkeypatch.setattr(many_room, "free_bytes", lambda _: 5 * GIB)
    with pytest.raises(many_room.ModelError, match=r"4\.2 GiB are free"):
        many_room.room_for(packed, parameters, 100, None, None, None)


def test_why_there_is_no_grouped_product():
    cpu = torch.device("cpu")
    assert why_no_grouped(cpu, torch.bfloat16, [8, 64]) == ""
    assert "float32" in why_no_grouped(cpu, torch.float32, [8])
    assert "multiples of 8: [12]" in why_no_grouped(cpu, torch.bfloat16, [8, 12])
