"""Running a probe into a cell's folder, unit by unit, so that what is measured is kept whatever comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from bystander.core.progress import Bar
from bystander.core.records import Context, Measurement
from bystander.engine.shutdown import Interrupted
from bystander.probe.base import Probe
from bystander.study.store.cell_dir import CellDir

if TYPE_CHECKING:
    from bystander.lm.model import LoadedModel

Stamp = Callable[[Measurement], Measurement]  # fills in the training's columns


def run_units(
    probe: Probe, loaded: LoadedModel, contexts: Sequence[Context], directory: CellDir, stamp: Stamp, bar: Bar, title: str,
    prefix: str = "", *, stopping: Callable[[], bool] = lambda: False,
) -> list[str]:  # fmt: skip
    """Run a probe on the model as it stands, saving each unit as it comes; returns the keys of all its units in order,
    each with `prefix` before it. Units that are kept already are not measured again. Raises Interrupted after
    the unit at which `stopping` says so."""
    keys = probe.units(contexts)
    saved = directory.kept_keys()
    done = [key for key in keys if prefix + key in saved]
    bar.start(title, len(keys))
    bar.advance(len(done))
    for unit in probe.run(loaded, contexts, done):
        directory.keep_unit(replace(unit, key=prefix + unit.key), stamp, probe.name)
        bar.advance()
        if stopping():
            raise Interrupted("a stop was asked for; the units are kept")
    return [prefix + key for key in keys]
