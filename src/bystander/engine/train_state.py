"""What a training keeps on disk on its way: the state that a killed one goes on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from bystander.core.files import explained, read_json, write_json
from bystander.lm.tensor_file import save_tensors
from bystander.study.store.cell_dir import CELLS_KEPT
from bystander.train.loop import TrainState

STATE = "state.json"


def keep_state(folder: Path, state: TrainState, steps: list[dict[str, Any]]) -> None:
    """Tensors first, then the small file that makes them count: a kill between the two loses one state, not the run."""
    tensors = folder / f"state-{state.step}.safetensors"
    with explained(tensors, CELLS_KEPT):
        save_tensors(state.tensors, tensors)
    old = read_json(folder / STATE)["tensors"] if (folder / STATE).is_file() else None
    write_json(folder / STATE, {"step": state.step, "tensors": tensors.name, "steps": steps}, CELLS_KEPT)
    if old and old != tensors.name:
        (folder / old).unlink(missing_ok=True)


def resume_state(folder: Path) -> tuple[TrainState | None, list[dict[str, Any]]]:
    """The state that was kept and the log of the steps before it; (None, []) for a training that begins."""
    if not (folder / STATE).is_file():
        return None, []
    kept = read_json(folder / STATE)
    return TrainState(kept["step"], load_file(folder / kept["tensors"])), kept["steps"]


def drop_state(folder: Path) -> None:
    """Remove every state: the training is complete."""
    for leftover in [folder / STATE, *folder.glob("state-*.safetensors")]:
        leftover.unlink(missing_ok=True)
