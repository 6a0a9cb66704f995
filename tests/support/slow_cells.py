"""Cells that only take time, for tests of executors: each counts to a number, and goes on where a kill left it."""

from __future__ import annotations

import os
import time
from pathlib import Path


class SlowCells:
    """A `CellRunner`. A cell's folder has `count`, and `by`: a line for each process that worked on it."""

    seconds_loading = 0.0

    def __init__(self, folder: Path, steps: int) -> None:
        self.folder, self.steps = folder, steps

    def run_key(self, key: str, shrink: int = 0) -> object:
        cell = self.folder / "cells" / key
        cell.mkdir(parents=True, exist_ok=True)
        with (cell / "by").open("a") as by:
            by.write(f"{os.environ.get('SLURM_JOB_ID')}\n")
        if key.startswith("bad"):
            raise ConnectionError("the cell's own fault")
        counter = cell / "count"
        for step in range(int(counter.read_text()) if counter.is_file() else 0, self.steps):
            time.sleep(0.2)
            counter.write_text(str(step + 1))
        return None


def slow_cells(steps: int, folder: Path) -> SlowCells:
    """What a worker makes of `partial(slow_cells, steps, folder)`."""
    return SlowCells(folder, steps)
