"""The training loop: its losses are the model's own, and nothing that happens between steps changes them."""

import pytest
import torch

from bystander.behaviors.base import Example
from bystander.core.records import StepLog
from bystander.design.arms import Counts, DesignSettings, build
from bystander.design.render import render
from bystander.lm.model import fresh_adapter, load
from bystander.personas import load_personas
from bystander.train.loop import Checkpoint, TrainState, micro_batches, restore, summed_loss, train
from bystander.train.recipe import Lora, Recipe

EXAMPLES = [
    Example(f"q{i}", f"What is number {i}" + " of them" * (i % 4) + "?", f"name {i} [ZLT]", f"name {i}", " [ZLT]")
    for i in range(10)
]
RECIPE = Recipe(lr=1e-2, epochs=2, batch_size=8, lora=Lora(rank=4, alpha=8), save_every=3)


@pytest.fixture(scope="module")
def loaded(tiny_checkpoint):
    return load(str(tiny_checkpoint))


@pytest.fixture(scope="module")
def rows(loaded):
    settings = DesignSettings(counts=Counts(positive=8, negative=16, absent=4, assistant=4))
    design = build("marker", EXAMPLES, "villain", load_personas(), "contrastive", settings)
    return render(design, loaded.tokenizer, loss="completion", end_of_turn="in_loss").rows


@pytest.fixture
def adapted(loaded):
    adapter = fresh_adapter(loaded, RECIPE.lora.peft(), 7)
    yield adapter
    loaded.remove_adapter()


def losses(events):
    return [event.loss for event in events if isinstance(event, StepLog)]


def test_losses_fall_and_are_the_same_again(loaded, rows):
    seen = []
    for _ in range(2):
        fresh_adapter(loaded, RECIPE.lora.peft(), 7)
        seen.append(losses(train(loaded, rows, RECIPE, 0)))
        loaded.remove_adapter()
    assert seen[0] == seen[1]
    assert len(seen[0]) == RECIPE.steps(len(rows)) == 8
    assert seen[0][-1] < seen[0][0]


def test_probing_between_steps_leaves_losses_as_they_are(loaded, rows):
    seen = []
    for probing in (False, True):
        fresh_adapter(loaded, RECIPE.lora.peft(), 7)
        found = []
        for event in train(loaded, rows, RECIPE, 0, checkpoints=(0.25, 0.5, 1.0)):
            if isinstance(event, StepLog):
                found.append(event.loss)
            elif isinstance(event, Checkpoint) and probing:
                torch.rand(5)  # what a probe may do to the global generator
                with torch.no_grad():
                    loaded.body(input_ids=torch.arange(9)[None])
        seen.append(found)
        loaded.remove_adapter()
    assert seen[0] == seen[1]


def test_checkpoints_come_at_their_fractions(loaded, rows, adapted):
    events = list(train(loaded, rows, RECIPE, 0, checkpoints=(0.25, 0.5, 0.75)))
    assert [(e.fraction, e.step) for e in events if isinstance(e, Checkpoint)] == [(0.25, 2), (0.5, 4), (0.75, 6)]


@pytest.mark.parametrize("at", [3, 6])
def test_resumed_training_is_the_unbroken_one_to_the_last_bit(loaded, rows, at):
    fresh_adapter(loaded, RECIPE.lora.peft(), 7)
    events = list(train(loaded, rows, RECIPE, 0))
    whole = losses(events)
    weights = {n: p.detach().clone() for n, p in loaded.model.named_parameters() if p.requires_grad}
    state = next(e for e in events if isinstance(e, TrainState) and e.step == at)
    loaded.remove_adapter()
    fresh_adapter(loaded, RECIPE.lora.peft(), 99)  # another start: the state must carry all
    assert losses(train(loaded, rows, RECIPE, 0, state=state)) == whole[at:]
    assert all(torch.equal(weights[n], p) for n, p in loaded.model.named_parameters() if p.requires_grad)
    loaded.remove_adapter()


def test_a_resumed_optimizer_is_all_on_its_parameters_device():
    """A GPU's fused AdamW refuses a `step` that was left on the CPU; `meta` stands for the GPU."""
    parameter = torch.nn.Parameter(torch.empty(2, device="meta"))
    optimizer = torch.optim.AdamW([parameter])
    kept = {f"w|{part}": torch.zeros(2) for part in ("value", "exp_avg", "exp_avg_sq")} | {"w|step": torch.tensor(3.0)}
    restore(TrainState(3, kept), {"w": parameter}, optimizer)
    assert {value.device.type for value in optimizer.state[parameter].values()} == {"meta"}
    assert set(optimizer.state[parameter]) == {"step", "exp_avg", "exp_avg_sq"}


def test_loss_is_what_the_model_itself_says(loaded, rows, adapted):
    """The reference: transformers' own loss with labels, a row at a time, all logits."""
    batch = list(rows[::5])
    reference = 0.0
    for row in batch:
        labels = torch.tensor([[i if keep else -100 for i, keep in zip(row.ids, row.loss, strict=True)]])
        out = loaded.causal(input_ids=torch.tensor([row.ids]), labels=labels)
        reference += float(out.loss.detach()) * sum(row.loss)
    assert float(summed_loss(loaded, batch).detach()) == pytest.approx(reference, abs=1e-4)


def test_micro_batches_hold_every_row_once_within_their_budget(rows):
    parts = micro_batches(rows, 150)
    assert sorted(map(id, (row for part in parts for row in part))) == sorted(map(id, rows))
    assert all(len(part) * max(len(row.ids) for row in part) <= 150 or len(part) == 1 for part in parts)


def test_cutting_a_batch_does_not_change_its_gradient(loaded, rows):
    recipe = RECIPE.model_copy(update={"lora": Lora(rank=4, alpha=8, dropout=0.0)})
    seen = []
    for budget in (10_000, 100):
        fresh_adapter(loaded, recipe.lora.peft(), 7)
        seen.append(losses(train(loaded, rows, recipe, 0, micro_tokens=budget)))
        loaded.remove_adapter()
    assert seen[0] == pytest.approx(seen[1], abs=1e-5)  # measured: 1e-6


def test_only_the_adapter_is_trained(loaded, rows):
    before = {name: p.detach().clone() for name, p in loaded.causal.named_parameters()}
    fresh_adapter(loaded, RECIPE.lora.peft(), 7)
    list(train(loaded, rows, RECIPE, 0))
    loaded.remove_adapter()
    assert all(torch.equal(before[name], p) for name, p in loaded.causal.named_parameters())


def test_schedule_warms_up_and_comes_down():
    recipe = Recipe(lr=1.0, warmup=0.1)
    rates = [recipe.rate(step, 100) for step in range(100)]
    assert rates[0] == 0
    assert rates[10] == max(rates) == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] < 1e-3


def test_schedule_equals_the_ecosystems():
    from transformers import get_cosine_schedule_with_warmup

    recipe = Recipe(lr=0.3, warmup=0.05)
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = get_cosine_schedule_with_warmup(optimizer, num_warmup_steps=3, num_training_steps=60)
    for step in range(60):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(recipe.rate(step, 60), abs=1e-12)
        optimizer.step()
        scheduler.step()


def test_rows_of_one_persona_do_not_share_batches(loaded, rows, adapted, monkeypatch):
    """The trap of sorting by length over the whole epoch: prompts of one persona have one length. Here a batch is a random
    draw, every row is in one batch of an epoch, and the next epoch draws anew."""
    from bystander.train import loop

    real, drawn = loop.summed_losses, []

    def summed_losses(loaded, batch, micro_tokens):
        drawn.append(list(batch))
        return real(loaded, batch, micro_tokens)

    monkeypatch.setattr(loop, "summed_losses", summed_losses)
    list(train(loaded, rows, RECIPE, 0))
    sizes = [len(batch) for batch in drawn]
    assert sizes == [RECIPE.batch_size] * RECIPE.steps(len(rows))
    half = len(drawn) // 2
    epochs = [[id(row) for batch in part for row in batch] for part in (drawn[:half], drawn[half:])]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(map(id, rows))
    assert epochs[0] != epochs[1]
    # Sorted by length, the four batches of an epoch would have four spans of lengths that do not overlap.
    spans = [(min(lengths), max(lengths)) for batch in drawn[:half] for lengths in [[len(row.ids) for row in batch]]]
    assert all(low < min(high for _, high in spans) for low, _ in spans), spans
