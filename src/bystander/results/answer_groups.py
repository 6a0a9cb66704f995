"""The answers that a run has kept, by probe and model state."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from bystander.core.records import Completion
from bystander.study.store.cell_dir import CellDir, Sampled
from bystander.study.store.run_dir import RunDir


@dataclass(frozen=True, slots=True)
class Group:
    """One probe's completions of one model state: a cell's, or those of one checkpoint in a training cell."""

    name: str
    cell: str
    created: str
    sampled: tuple[Sampled, ...]

    @property
    def completions(self) -> list[Completion]:
        """Without their stamps."""
        return [one.completion for one in self.sampled]


def groups_of(run: RunDir, probe: str) -> list[Group]:
    """The kept completions of a probe; [] where the run has none."""
    times = {
        event.key: event.time.isoformat(timespec="milliseconds") for event in run.events() if event.kind == "cell done"
    }
    groups: list[Group] = []
    for cell in run.complete_cells():
        manifest = cell.manifest()
        by_checkpoint: dict[float, list[Sampled]] = {}
        for one in cell.sampled():
            if one.stamp["probe"] == probe:
                by_checkpoint.setdefault(one.stamp["checkpoint"], []).append(one)
        for checkpoint, answers in by_checkpoint.items():
            name = manifest.name if len(by_checkpoint) == 1 else f"{manifest.name}-at-{checkpoint:g}"
            groups.append(Group(name, manifest.name, times.get(manifest.key) or _written(cell), tuple(answers)))
    return groups


def _written(cell: CellDir) -> str:
    """When a cell was done by its manifest's own time: for a run that has lost its events."""
    when = datetime.fromtimestamp(cell.manifest_file.stat().st_mtime, UTC)
    return when.isoformat(timespec="milliseconds")
