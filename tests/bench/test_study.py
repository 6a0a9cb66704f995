"""The benchmark of a study on a tiny model: trivial cells, real ones alone and together."""

from __future__ import annotations

from pathlib import Path

import pytest

from bystander.bench.study import bench_study
from bystander.core.progress import Silent


def test_the_three_runs_and_their_figures(tiny_checkpoint: Path):
    trivial, alone, joint = bench_study(
        str(tiny_checkpoint), None, "cpu", Silent(), rows=8, personas=6, seeds=1, together=5, trivial=15
    )  # fmt: skip
    assert (trivial.cells, trivial.together) == (3 * 5 + 4, 1)
    assert trivial.a_cell < 0.3
    assert alone.cells == joint.cells == 5 * 3 + 4
    assert (alone.together, joint.together) == (1, 5)
    for one in (alone, joint):
        assert one.makespan > 0
        assert 0 <= one.idle < 0.9
        assert 0 < one.start < one.makespan
    assert alone.a_cell == pytest.approx(alone.makespan * alone.idle / alone.cells, rel=0.01)
