"""Trainings in a group against the same trainings alone: losses, weights, files, states; and that none disturbs another."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from bystander.core.errors import ModelError
from bystander.core.records import StepLog
from bystander.lm.adapters import state_of
from bystander.lm.model import fresh_adapter, load, save_adapter
from bystander.lm.tokens import RenderedRow
from bystander.train.loop import Checkpoint, TrainState
from bystander.train.many import Failed, Finished, Job, Started, Stopped, train_many
from bystander.train.recipe import Lora, Recipe
from tests.reference.many import train_each

LORA = Lora(rank=8, alpha=16, dropout=0.1)
RECIPE = Recipe(lr=1e-2, epochs=2, batch_size=6, lora=LORA, save_every=2)
# Relative distance of trained adapters: AdamW makes whole steps of gradients that are rounding alone. Measured: 4e-5.
WEIGHTS = 1e-3
MICRO = 120  # padded tokens: about four rows, so that a batch is two micro-batches


@pytest.fixture(scope="module")
def loaded(tiny_checkpoint):
    return load(str(tiny_checkpoint))


@pytest.fixture(autouse=True)
def bare(loaded):
    loaded.remove_adapter()
    base = {name: p.detach().clone() for name, p in loaded.causal.named_parameters()}
    yield
    assert loaded.model is loaded.causal
    assert not any(module._forward_hooks for module in loaded.causal.modules())
    assert all(torch.equal(base[name], p) for name, p in loaded.causal.named_parameters())


def rows(seed, count=16, longest=40):
    g = np.random.default_rng(seed)
    lengths = g.integers(12, longest, count)
    return [RenderedRow(g.integers(0, 500, n).tolist(), [i >= n - 6 for i in range(n)], n - 6, 5, 1) for n in lengths]


def job(number, **more):
    return Job(f"job{number}", rows(number), RECIPE, 40 + number, 70 + number, **more)


def jobs(count=3, **more):
    return [job(number, **more) for number in range(count)]


def on_maps(*maps):
    return RECIPE.model_copy(update={"lora": LORA.model_copy(update={"target_modules": list(maps)})})


def losses(events):
    return [event.loss for event in events if isinstance(event, StepLog)]


def run(loaded, group, **settings):
    """Per job its events, and the tensors of those that finished, under the parameters' names."""
    events, weights = {one.name: [] for one in group}, {}
    for name, event in train_many(loaded, group, **settings):
        events[name].append(event)
        if isinstance(event, Finished):
            assert loaded.model is event.adapter
            weights[name] = {n: p.detach().clone() for n, p in event.adapter.named_parameters() if p.requires_grad}
    return events, weights


def apart(ours, reference):
    """Relative distance of two adapters."""
    assert ours.keys() == reference.keys()
    square = sum(float((ours[name] - reference[name]).norm() ** 2) for name in ours)
    return (square / sum(float(value.norm() ** 2) for value in reference.values())) ** 0.5


@pytest.mark.parametrize("pass_tokens", [None, 10_000])
def test_each_training_is_what_it_is_alone(loaded, pass_tokens):
    """Dropout is on: also its draws are those of the training alone."""
    group = jobs()
    alone = train_each(loaded, group, micro_tokens=MICRO)
    events, weights = run(loaded, group, micro_tokens=MICRO, pass_tokens=pass_tokens)
    for name, (expected, values) in alone.items():
        found = [event for event in events[name] if isinstance(event, StepLog)]
        assert len(found) == 6
        for ours, theirs in zip(found, (e for e in expected if isinstance(e, StepLog)), strict=True):
            assert ours.loss == pytest.approx(theirs.loss, abs=1e-5)
            assert ours.grad_norm == pytest.approx(theirs.grad_norm, rel=1e-4)
            assert replace(ours, loss=0, grad_norm=0) == replace(theirs, loss=0, grad_norm=0)
        assert apart(weights[name], values) < WEIGHTS
    assert losses(events["job0"]) != pytest.approx(losses(events["job1"]), abs=1e-2)


def test_other_recipes_and_lengths_in_one_group(loaded):
    """A sweep: rates, epochs, batch sizes, decay and clipping differ; the first to end leaves its slot to the last."""
    group = [
        replace(job(0), recipe=RECIPE.model_copy(update={"epochs": 1, "lr": 3e-3})),
        replace(job(1), recipe=RECIPE.model_copy(update={"batch_size": 5, "weight_decay": 0.1})),
        replace(job(2), recipe=RECIPE.model_copy(update={"max_grad_norm": 0.05}), rows=rows(9, 7)),
        job(3),
    ]
    alone = train_each(loaded, group, micro_tokens=MICRO)
    events, weights = run(loaded, group, slots=2, micro_tokens=MICRO, pass_tokens=10_000)
    for name, (expected, values) in alone.items():
        assert losses(events[name]) == pytest.approx(losses(expected), abs=1e-5)
        assert apart(weights[name], values) < WEIGHTS
        assert isinstance(events[name][0], Started)
        assert isinstance(events[name][-1], Finished)


def test_events_come_in_the_order_of_the_loop(loaded):
    group = jobs(2, checkpoints=(0.3, 0.5, 1.0))
    alone = train_each(loaded, group)
    events, _ = run(loaded, group)
    for name, (expected, _) in alone.items():
        assert isinstance(events[name][0], Started)
        assert "plain" in events[name][0].passes
        ours = events[name][1:-1]
        assert [type(event) for event in ours] == [type(event) for event in expected]
        ours, theirs = ([e for e in found if isinstance(e, Checkpoint)] for found in (ours, expected))
        assert ours == theirs


def test_files_load_in_peft_and_answer_as_the_model_did(loaded, tmp_path):
    ids = torch.arange(5, 25)[None]
    answers = {}
    for name, event in train_many(loaded, jobs(2)):
        if isinstance(event, Finished):
            save_adapter(event.adapter, tmp_path / name, loaded.base_id)
            with torch.no_grad():
                answers[name] = loaded.body(input_ids=ids), loaded.weights_hash
    for name, (states, weights_hash) in answers.items():
        with loaded.adapter(tmp_path / name), torch.no_grad():  # PEFT's own reading, checked against the base
            assert loaded.weights_hash == weights_hash
            assert torch.equal(loaded.body(input_ids=ids), states)
    assert not torch.equal(answers["job0"][0], answers["job1"][0])


def test_a_probe_sees_that_adapter_alone_and_changes_nothing(loaded):
    group = jobs(2, checkpoints=(0.5,))
    alone = train_each(loaded, group)
    states = {}
    for one in group:  # the adapter of each training alone at half of it
        half = next(e for e in alone[one.name][0] if isinstance(e, TrainState) and e.step == 2)
        resumed = train_each(loaded, [replace(one, state=half)])[one.name][0]
        assert losses(resumed) == losses(alone[one.name][0])[2:]
    for name, event in train_many(loaded, group):
        if isinstance(event, Checkpoint):
            torch.rand(7)  # what a probe may do to the global generator
            assert not loaded.causal.training
            assert list(loaded.model.peft_config) == ["default"]
            states[name] = state_of(loaded.model)
            with torch.no_grad():
                loaded.body(input_ids=torch.arange(9)[None])
        elif isinstance(event, StepLog):
            assert loaded.model is loaded.causal
            expected = losses(alone[name][0])[event.step - 1]
            assert event.loss == pytest.approx(expected, abs=1e-5)
    assert apart(states["job0"], states["job1"]) > 1e-3


@pytest.mark.parametrize("onward", ["alone", "another group"])
def test_a_state_goes_on_alone_or_in_another_group(loaded, onward):
    group = jobs(3)
    events, weights = run(loaded, group, pass_tokens=10_000)
    states = {
        name: next(e for e in found if isinstance(e, TrainState) and e.step == 4) for name, found in events.items()
    }
    resumed = [replace(one, state=states[one.name], adapter_seed=999) for one in group]
    if onward == "alone":
        again = train_each(loaded, resumed[:1])
        found, values = losses(again["job0"][0]), again["job0"][1]
    else:  # with another mate, which stands elsewhere in its training, in the other slot
        more, ends = run(loaded, [job(7), resumed[0]], pass_tokens=10_000)
        found, values = losses(more["job0"]), ends["job0"]
    assert found == pytest.approx(losses(events["job0"])[4:], abs=1e-5)
    assert apart(values, weights["job0"]) < WEIGHTS


def test_states_have_the_format_of_the_loop(loaded):
    ours, _ = run(loaded, [job(0)])
    theirs = train_each(loaded, [job(0)])["job0"][0]
    for one, other in zip(
        *([e for e in found if isinstance(e, TrainState)] for found in (ours["job0"], theirs)), strict=True
    ):
        assert one.step == other.step
        assert one.tensors.keys() == other.tensors.keys()
        for name, value in other.tensors.items():
            assert one.tensors[name].dtype == value.dtype
            torch.testing.assert_close(one.tensors[name], value, atol=1e-4, rtol=1e-3)


def test_a_training_that_fails_leaves_the_others_as_they_are(loaded):
    group = jobs(3)
    group[1] = replace(group[1], recipe=RECIPE.model_copy(update={"lr": 1e30, "max_grad_norm": 1e30}))
    alone = train_each(loaded, [group[0], group[2], job(5)])
    events, weights = run(loaded, [*group, job(5)], slots=3, pass_tokens=10_000)
    failed = events["job1"][-1]
    assert isinstance(failed, Failed)
    assert "Lower the rate" in failed.reason
    for name in ("job0", "job2", "job5"):  # the last took the failed one's slot
        assert losses(events[name]) == pytest.approx(losses(alone[name][0]), abs=1e-5)
        assert apart(weights[name], alone[name][1]) < WEIGHTS


def test_a_training_that_is_stopped_can_go_on(loaded):
    group = jobs(3)
    whole = train_each(loaded, group)
    stopped, seen = {"job2"}, []
    state = None
    for name, event in train_many(loaded, group, slots=2, stopped=stopped):
        if name == "job1" and isinstance(event, StepLog) and event.step == 3:
            stopped.add("job1")
        if name == "job1" and isinstance(event, TrainState):
            state = event
        if isinstance(event, (Stopped, Finished)):
            seen.append((name, type(event), event.step))
    assert seen == [("job1", Stopped, 3), ("job2", Stopped, 0), ("job0", Finished, 6)]
    again = train_each(loaded, [replace(group[1], state=state)])["job1"]
    assert losses(again[0]) == pytest.approx(losses(whole["job1"][0])[3:], abs=1e-5)


def test_whoever_leaves_in_the_middle_gets_the_bare_base_back(loaded):
    for _, event in train_many(loaded, jobs(2, checkpoints=(0.5,))):
        if isinstance(event, Checkpoint):
            break
    del event
    # the fixture looks


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda group: [group[0], replace(group[1], name="job0")], "two jobs have one name: job0"),
        (lambda group: [group[0], replace(group[1], rows=[])], "nothing to train in job1"),
        (
            lambda group: [group[0], replace(group[1], recipe=RECIPE.model_copy(update={"lora": Lora(rank=4)}))],
            "must have one `lora`; job1 differ from job0",
        ),
        (
            lambda group: [replace(one, recipe=on_maps("q_proj", "embed_tokens")) for one in group],
            r"only as plain LoRAs.*lora_embedding_A",
        ),
        (lambda group: [replace(one, recipe=on_maps("q_proj", "lm_head")) for one in group], r"other tensors.*lm_head"),
    ],
)
def test_what_cannot_be_a_group_is_an_error(loaded, change, message):
    with pytest.raises(ModelError, match=message):
        list(train_many(loaded, change(jobs(2))))


def test_an_adapter_that_is_on_is_an_error(loaded):
    fresh_adapter(loaded, LORA.peft(), 0)
    with pytest.raises(ModelError, match="another adapter is on"):
        next(train_many(loaded, jobs(1)))
    loaded.remove_adapter()


def test_a_state_of_another_recipe_is_an_error(loaded):
    events, _ = run(loaded, [job(0)])
    state = next(e for e in events["job0"] if isinstance(e, TrainState))
    other = RECIPE.model_copy(update={"lora": LORA.model_copy(update={"rank": 4})})
    with pytest.raises(ModelError, match="does not fit its recipe"):
        list(train_many(loaded, [replace(job(0), recipe=other, state=state)]))
