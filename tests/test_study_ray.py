"""Ray on this machine: two workers measure what one process measures; a worker that is killed costs nothing but time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="Ray is an extra: pip install 'bystander[ray]'")

from study_tiny import make_model, write_study

# Ray warns and forks as it likes; a process of its own keeps that out of the tests.
SCRIPT = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from bystander.study.engine import on_ray
from bystander.study.engine.run import run_study
from bystander.study.spec.spec import load
study, folder = load(sys.argv[1], sys.argv[4:]), Path(sys.argv[2])
killed = []
if sys.argv[3] == "kill":
    real = on_ray.OnRay.submit
    def submit(self, attempt):
        real(self, attempt)
        if attempt.name.startswith("train-marker-comedian") and not killed:
            actor = next(actor for a, actor, _ in self._running.values() if a.key == attempt.key)
            killed.append(PIDS[id(actor)])
            os.kill(killed[0], signal.SIGKILL)
    make = on_ray.OnRay._actor
    PIDS = {}
    def _actor(self):
        actor = make(self)
        PIDS[id(actor)] = self.ray.get(actor.process.remote())
        return actor
    on_ray.OnRay._actor, on_ray.OnRay.submit = _actor, submit
ran = run_study(study, folder)
assert not ran.failed and not ran.left and not ran.stopped, ran
assert bool(killed) == (sys.argv[3] == "kill")
"""
RAY = ["executor.kind=ray", "executor.workers=2"]


def run(script_args: list[str]) -> None:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *script_args], capture_output=True, text=True, check=False, timeout=900, env=env
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_two_ray_workers_one_of_them_killed_measure_what_one_process_measures(tmp_path: Path):
    study = write_study(tmp_path / "study", make_model(tmp_path / "model"))
    run([str(study), str(tmp_path / "local"), "no"])
    run([str(study), str(tmp_path / "ray"), "kill", *RAY])
    for name in ("measurements.parquet", "similarities.parquet", "personas.parquet"):
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "local" / name).read_bytes(), name
    events = (tmp_path / "ray" / "events.jsonl").read_text()
    assert "again on another worker" in events
