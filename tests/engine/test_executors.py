"""Executors on this machine: two workers measure what one process measures; one that is killed costs nothing but time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bystander.engine.executor_processes import ProcessExecutor, ProcessSettings, devices
from tests.support.study_tiny import make_model, write_study

# Ray warns and forks as it likes; a process of its own keeps that out of the tests.
SCRIPT = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from bystander.engine.run import run_study
from bystander.study.config.study import load
study, folder = load(sys.argv[1], sys.argv[4:]), Path(sys.argv[2])
killed = []
if sys.argv[3] == "kill":
    from bystander.engine import executor_ray as on_ray
    real = on_ray.RayExecutor.submit
    def submit(self, attempt):
        real(self, attempt)
        if attempt.name.startswith("train-marker-comedian") and not killed:
            actor = next(actor for a, actor, _ in self._running.values() if a.key == attempt.key)
            killed.append(PIDS[id(actor)])
            os.kill(killed[0], signal.SIGKILL)
    make = on_ray.RayExecutor._actor
    PIDS = {}
    def _actor(self):
        actor = make(self)
        PIDS[id(actor)] = self.ray.get(actor.process.remote())
        return actor
    on_ray.RayExecutor._actor, on_ray.RayExecutor.submit = _actor, submit
if __name__ == "__main__":  # a process that is spawned imports this file again
    ran = run_study(study, folder)
    assert not ran.failed and not ran.left and not ran.stopped, ran
    assert bool(killed) == (sys.argv[3] == "kill")
"""
PLAIN = ["sweep=null", "gate=null"]
BARS = """
from tqdm import tqdm
from bystander.engine.executor import Attempt
from bystander.engine.executor_processes import ProcessExecutor, ProcessSettings

class Runner:
    seconds_loading = 0.0
    def run_key(self, key, shrink=0):
        for _ in tqdm([1]): pass

if __name__ == "__main__":
    executor = ProcessExecutor(ProcessSettings(workers=1), Runner)
    executor.submit(Attempt("key", "cell"))
    (outcome,) = executor.wait(120)
    assert outcome.failure is None, outcome.failure
    executor.close()
"""


def run(script_args: list[str]) -> None:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *script_args], capture_output=True, text=True, check=False, timeout=900, env=env
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("executors")
    return write_study(folder / "study", make_model(folder / "model"))


@pytest.fixture(scope="module")
def local(study: Path) -> Path:
    """The run directory of the study done in one process."""
    run([str(study), str(study.parent / "local"), "no", *PLAIN])
    return study.parent / "local"


def assert_equal(run_directory: Path, local: Path) -> None:
    for name in ("measurements.parquet", "similarities.parquet", "personas.parquet"):
        assert (run_directory / name).read_bytes() == (local / name).read_bytes(), name


def test_two_ray_workers_one_of_them_killed_measure_what_one_process_measures(study: Path, local: Path, tmp_path: Path):
    pytest.importorskip("ray", reason="Ray is an extra: pip install 'bystander[ray]'")
    run([str(study), str(tmp_path / "ray"), "kill", "executor.kind=ray", "executor.workers=2", *PLAIN])
    assert_equal(tmp_path / "ray", local)
    assert "again on another worker" in (tmp_path / "ray" / "events.jsonl").read_text()


def test_two_processes_measure_what_one_measures(study: Path, local: Path, tmp_path: Path):
    run([str(study), str(tmp_path / "two"), "no", "executor.kind=processes", "executor.workers=2", *PLAIN])
    assert_equal(tmp_path / "two", local)


def test_processes_that_are_ended_leave_no_semaphore_behind(tmp_path: Path):
    """A bar in a worker makes a lock, and workers are killed at the end."""
    script = tmp_path / "bars.py"
    script.write_text(BARS)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "1/1" in done.stderr
    assert "leaked semaphore" not in done.stderr


def test_processes_take_the_gpus_in_turn():
    assert devices(4, None, 2) == ["0", "1", "0", "1"]
    assert devices(3, "5,7", 2) == ["5", "7", "5"]
    assert devices(2, "3", 1) == devices(2, None, 1) == devices(2, None, 0) == []


def test_processes_that_share_a_gpu_pay_for_their_share_of_it(monkeypatch: pytest.MonkeyPatch):
    import torch

    for gpus, workers, share in ((2, 8, 0.25), (2, 1, 1.0), (0, 4, 1.0)):
        monkeypatch.setattr(torch.cuda, "device_count", lambda gpus=gpus: gpus)
        executor = ProcessExecutor(ProcessSettings(workers=workers), dict)
        assert executor.share == share
        executor.close()
