"""The training loop.

A generator: it yields a `StepLog` after each step, a `Checkpoint` where probes are to run and a `TrainState` to resume
from. Whoever iterates may do anything with the model in between: each step seeds its own randomness from (seed, step),
so probing, stopping and resuming cannot change a loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bystander.core.hashing import generator, seed_for
from bystander.core.records import StepLog
from bystander.lm.model import LoadedModel
from bystander.lm.tokens import RenderedRow
from bystander.train import packed
from bystander.train.recipe import Recipe, checkpoint_steps

# Padded tokens a micro-batch of the plain forward pass, by device; the packed one has its own. On two CPU cores 512 are
# as fast as 2,048 (rows of 64 tokens a fifth faster, of 140 a twentieth slower) in 2.6 GiB instead of 7.8 to 9.3.
MICRO_TOKENS = {"cpu": 512, "cuda": 2048}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Training stands at `fraction` of its steps, adapter on, model in eval mode: probe it now."""

    fraction: float
    step: int


@dataclass(frozen=True, slots=True)
class TrainState:
    """All that a training needs to go on from `step` bit for bit: adapter and AdamW moments by parameter name."""

    step: int
    tensors: dict[str, Tensor]


Event = StepLog | Checkpoint | TrainState


def train(
    loaded: LoadedModel,
    rows: Sequence[RenderedRow],
    recipe: Recipe,
    seed: int,
    *,
    checkpoints: Sequence[float] = (),
    state: TrainState | None = None,
    micro_tokens: int | None = None,
    stopping: Callable[[], bool] = lambda: False,
) -> Iterator[Event]:
    """Train the adapter that is active on `loaded`.

    Batches are drawn at random from the rows; inside a batch rows are sorted by length and cut into micro-batches of
    at most `micro_tokens` padded tokens, whose gradients add up to exactly the batch's. Sorting *across* batches would
    put the rows of one persona together (their prompts have one length), so it is not done. Loss is the mean negative
    log-likelihood in nats over the batch's loss tokens, as in the ecosystem's trainers. Where the model has a fast
    forward pass (`LoadedModel.packed`), `train.packed` computes the same loss without padding.

    `checkpoints` are fractions in (0, 1], of which `checkpoint_steps` says which there are; `state` continues a training that was cut off.
    `stopping` is asked after each step: where it says so, a `TrainState` comes at once.
    """
    model = loaded.model
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    on_gpu = loaded.device.type == "cuda"
    optimizer = torch.optim.AdamW(
        trained.values(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=on_gpu or None
    )
    total = recipe.steps(len(rows))
    probe_at = checkpoint_steps(checkpoints, total)
    per_epoch = total // recipe.epochs
    if state is not None:
        restore(state, trained, optimizer)

    for step in range(state.step if state else 0, total):
        batch = _batch(rows, recipe.batch_size, seed, *divmod(step, per_epoch))
        loss_tokens = sum(sum(row.loss) for row in batch)
        rate = recipe.rate(step, total)
        for group in optimizer.param_groups:
            group["lr"] = rate

        model.train()
        torch.manual_seed(seed_for(seed, "step", step))  # dropout: by step, so that a probe or a resume changes nothing
        loss = torch.zeros((), device=loaded.device)
        for summed in summed_losses(loaded, batch, micro_tokens):
            part = summed / max(1, loss_tokens)
            part.backward()
            loss += part.detach()
        norm = torch.nn.utils.clip_grad_norm_(trained.values(), recipe.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        model.eval()

        done = step + 1
        yield StepLog(done, done / per_epoch, float(loss), rate, loss_tokens, float(norm))
        if done in probe_at:
            yield Checkpoint(probe_at[done], done)
            loaded.close_sampler()  # a probe may have opened it; training needs the memory
        if done < total and (done % recipe.save_every == 0 or stopping()):
            yield TrainState(done, _snapshot(trained, optimizer))


def _batch(rows: Sequence[RenderedRow], size: int, seed: int, epoch: int, place: int) -> list[RenderedRow]:
    """The batch at a place of an epoch, whose order is drawn at random from the seed and the epoch."""
    order = generator(seed, "epoch", epoch).permutation(len(rows))
    return [rows[i] for i in order[place * size : (place + 1) * size]]


def micro_tokens_of(loaded: LoadedModel) -> int:
    """Tokens of a micro-batch where nobody says otherwise: of the forward pass that the model has now."""
    return MICRO_TOKENS[loaded.device.type] if loaded.packed is None else packed.MICRO_TOKENS


def summed_losses(loaded: LoadedModel, batch: Sequence[RenderedRow], micro_tokens: int | None) -> Iterator[Tensor]:
    """A batch's summed losses, a micro-batch at a time: packed where the model has that forward pass, else plain."""
    forward = loaded.packed
    most = micro_tokens or micro_tokens_of(loaded)
    if forward is not None:
        for micro in packed.micro_batches(batch, most):
            yield packed.summed_loss(loaded, forward, micro)
    else:
        for micro in micro_batches(batch, most):
            yield summed_loss(loaded, micro)


def micro_batches(batch: Sequence[RenderedRow], micro_tokens: int) -> list[list[RenderedRow]]:
    """A batch sorted by length and cut so that rows x longest stays within `micro_tokens` (a single row may exceed)."""
    parts: list[list[RenderedRow]] = []
    for row in sorted(batch, key=lambda row: len(row.ids), reverse=True):
        if parts and len(parts[-1][0].ids) * (len(parts[-1]) + 1) <= micro_tokens:
            parts[-1].append(row)
        else:
            parts.append([row])
    return parts


def summed_loss(loaded: LoadedModel, rows: Sequence[RenderedRow]) -> Tensor:
    """Negative log-likelihood in nats, summed over the loss tokens of `rows`; logits exist at those places only.

    Right padding under causal attention is invisible to every real token, so no attention mask is needed.
    """
    longest = max(len(row.ids) for row in rows)
    ids = torch.zeros((len(rows), longest), dtype=torch.long)
    loss = torch.zeros((len(rows), longest), dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        loss[i, : len(row.ids)] = torch.tensor(row.loss)
    ids, loss = ids.to(loaded.device, non_blocking=True), loss.to(loaded.device, non_blocking=True)
    hidden = loaded.body(input_ids=ids)[:, :-1]
    logits = loaded.head(hidden[loss[:, 1:]]).float()
    return torch.nn.functional.cross_entropy(logits, ids[:, 1:][loss[:, 1:]], reduction="sum")


def _snapshot(trained: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, parameter in trained.items():
        tensors[f"{name}|value"] = parameter.detach().cpu().clone()
        for key, value in optimizer.state[parameter].items():
            tensors[f"{name}|{key}"] = torch.as_tensor(value).detach().cpu().clone()
    return tensors


def restore(state: TrainState, trained: dict[str, torch.nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    """Adapter and optimizer as `state` has them, on the parameters' device."""
    by_parameter: dict[str, dict[str, Tensor]] = {}
    for key, value in state.tensors.items():
        name, part = key.rsplit("|", 1)
        by_parameter.setdefault(name, {})[part] = value
    with torch.no_grad():
        for name, parameter in trained.items():
            parts = by_parameter[name]
            parameter.copy_(parts.pop("value"))
            # `step` too: the fused AdamW of a GPU counts there.
            optimizer.state[parameter] = {key: value.to(parameter.device) for key, value in parts.items()}
