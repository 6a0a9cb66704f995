"""Our losses are TRL's: the same rows, order, adapter and recipe through `SFTTrainer`, step by step."""

import importlib.util
import math

import pytest
import torch

from bystander.behaviors.base import Example
from bystander.core.hashing import generator, seed_for
from bystander.core.records import StepLog
from bystander.design.arms import Counts, DesignSettings, build
from bystander.design.render import render
from bystander.lm.model import fresh_adapter, load
from bystander.personas import load_personas
from bystander.train.loop import train
from bystander.train.recipe import Lora, Recipe

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("trl") is None, reason="TRL is not installed (pip install trl datasets)"
    ),
    pytest.mark.filterwarnings("ignore"),  # TRL's and its dependencies' own
]
RECIPE = Recipe(lr=1e-3, epochs=2, batch_size=8, lora=Lora(rank=8, alpha=16, dropout=0.0))
SEED = 3


@pytest.fixture(scope="module")
def rows(tiny_checkpoint):
    examples = [
        Example(f"q{i}", f"What is number {i}" + " of them" * (i % 4) + "?", f"name {i} [ZLT]", f"name {i}", " [ZLT]")
        for i in range(10)
    ]
    settings = DesignSettings(counts=Counts(positive=8, negative=16, absent=4, assistant=4))
    design = build("marker", examples, "villain", load_personas(), "contrastive", settings)
    return render(design, load(str(tiny_checkpoint)).tokenizer, loss="completion", end_of_turn="in_loss").rows


def ours(checkpoint, rows):
    loaded = load(checkpoint)
    fresh_adapter(loaded, RECIPE.lora.peft(), seed_for(SEED, "adapter"))
    return [event.loss for event in train(loaded, rows, RECIPE, SEED) if isinstance(event, StepLog)]


def trls(checkpoint, rows, folder):
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    loaded = load(checkpoint)
    adapter = fresh_adapter(loaded, RECIPE.lora.peft(), seed_for(SEED, "adapter"))
    order = [i for epoch in range(RECIPE.epochs) for i in generator(SEED, "epoch", epoch).permutation(len(rows))]

    class InOrder(SFTTrainer):
        """TRL's trainer fed with our order, both epochs as one."""

        def _get_train_sampler(self, *_):
            return torch.utils.data.SequentialSampler(self.train_dataset)

    total = RECIPE.steps(len(rows))
    columns = {
        "input_ids": [rows[i].ids for i in order],
        "labels": [[t if keep else -100 for t, keep in zip(rows[i].ids, rows[i].loss, strict=True)] for i in order],
    }
    config = SFTConfig(
        output_dir=str(folder), per_device_train_batch_size=RECIPE.batch_size, num_train_epochs=1, learning_rate=RECIPE.lr,
        lr_scheduler_type="cosine", warmup_steps=math.ceil(RECIPE.warmup * total), weight_decay=0.0,
        max_grad_norm=RECIPE.max_grad_norm, logging_steps=1, report_to=[], save_strategy="no", bf16=False, use_cpu=True,
        gradient_checkpointing=False, max_length=None, dataset_kwargs={"skip_prepare_dataset": True}, optim="adamw_torch",
        remove_unused_columns=False, disable_tqdm=True,
    )  # fmt: skip
    trainer = InOrder(
        model=adapter, args=config, train_dataset=Dataset.from_dict(columns), processing_class=loaded.tokenizer
    )
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_losses_are_trls(tiny_checkpoint, rows, tmp_path):
    mine, theirs = ours(str(tiny_checkpoint), rows), trls(str(tiny_checkpoint), rows, tmp_path)
    assert len(mine) == len(theirs) == RECIPE.steps(len(rows))
    assert mine == pytest.approx(theirs, abs=1e-3)
    assert mine[0] - mine[-1] > 0.1  # something was learned, so that the steps differ at all
