"""The Slurm executor against a real Slurm of one node: what a cancelled job, a requeued job and a dead driver cost."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from bystander.core.errors import StudyError
from bystander.engine.executor import Attempt, Outcome
from bystander.engine.executor_slurm import SlurmExecutor, SlurmSettings
from bystander.engine.retry_policy import CellFailure
from bystander.engine.slurm_mailbox import Mailbox
from tests.support.slow_cells import slow_cells
from tests.support.slurm_cluster import Cluster, why_not
from tests.support.study_tiny import make_model, write_study

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = "import torch; torch.set_num_threads(1); from bystander.cli.main import main; main()"
SLURM = ["executor.kind=slurm", "executor.workers=2", "executor.gpus=0", "executor.cpus=1", "executor.poll_seconds=0.5"]
QUICK = {"gpus": 0, "cpus": 1, "poll_seconds": 0.3, "idle_minutes": 2.0}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory):
    if why_not():
        pytest.skip(why_not())
    with Cluster(tmp_path_factory.mktemp("slurm")) as running:
        running.env |= {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"}
        yield running


@pytest.fixture
def here(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    """The cluster, with this process as its login node; no job is left by an earlier test."""
    pytest.importorskip("submitit", reason="submitit is an extra: pip install 'bystander[slurm]'")
    for name in ("PATH", "SLURM_CONF", "PYTHONPATH", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, cluster.env[name])
    cluster("scancel", "--user=root")
    return cluster


def until(found, seconds: float = 60, every: float = 0.05):
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(every)
    return value


def outcomes(executor: SlurmExecutor, count: int, seconds: float = 90) -> list[Outcome]:
    found: list[Outcome] = []
    until(lambda: found.extend(executor.wait(0.5)) or len(found) >= count, seconds)
    return found


def made(folder: Path, steps: int, **settings) -> SlurmExecutor:
    return SlurmExecutor(SlurmSettings(**(QUICK | settings)), partial(slow_cells, steps, folder))


def words(folder: Path, key: str) -> list[str]:
    return (folder / "cells" / key / "by").read_text().split()


def test_a_cancelled_job_is_replaced_and_its_cell_goes_on_elsewhere(here: Cluster, tmp_path: Path):
    executor = made(tmp_path, 60, workers=2)
    for key in ("one", "two"):
        executor.submit(Attempt(key, key))
    until(lambda: (tmp_path / "cells" / "one" / "count").is_file() and (tmp_path / "cells" / "two" / "count").is_file())
    (job,) = words(tmp_path, "one")
    here("scancel", job)
    first = outcomes(executor, 2)
    by_key = {outcome.attempt.key: outcome for outcome in first}
    assert by_key["two"].failure is None
    assert by_key["one"].failure is not None
    assert (by_key["one"].failure.retry, by_key["one"].failure.kind) == ("other_worker", "SlurmJobEnded")
    counted = int((tmp_path / "cells" / "one" / "count").read_text())
    assert 0 < counted < 60
    executor.submit(Attempt("one", "one", 2))
    (again,) = outcomes(executor, 1)
    assert again.failure is None
    assert again.seconds < (60 - counted) * 0.25 + 1  # it was resumed, not done again from the start
    assert words(tmp_path, "one")[1] != job
    executor.close()
    until(lambda: not executor_jobs(here))


def executor_jobs(cluster: Cluster) -> list[str]:
    return cluster("squeue", "-h", "-o", "%i").split()


def test_a_preempted_job_is_requeued_by_slurm_and_takes_up_its_cell(here: Cluster, tmp_path: Path):
    executor = made(tmp_path, 25)
    executor.submit(Attempt("one", "one"))
    until((tmp_path / "cells" / "one" / "count").is_file)
    (job,) = words(tmp_path, "one")
    here("scancel", "--signal=USR2", job)  # what Slurm sends before a time limit or a preemption
    until(lambda: here("squeue", "-h", "-j", job, "-o", "%T").strip() == "PENDING")
    here("scontrol", "update", f"JobId={job}", "StartTime=now")  # Slurm would hold it back for two minutes
    (outcome,) = outcomes(executor, 1, 200)
    assert outcome.failure is None
    assert words(tmp_path, "one") == [job, job]
    assert f"JobId={job}" in here("scontrol", "show", "job", job)
    assert "Restarts=1" in here("scontrol", "show", "job", job)
    executor.close()


def test_a_cells_own_fault_is_told_and_the_job_goes_on(here: Cluster, tmp_path: Path):
    executor = made(tmp_path, 1)
    executor.submit(Attempt("bad", "bad"))
    (bad,) = outcomes(executor, 1)
    assert bad.failure == CellFailure("again", "the cell's own fault", "ConnectionError")
    executor.submit(Attempt("good", "good"))
    (good,) = outcomes(executor, 1)
    assert good.failure is None
    assert words(tmp_path, "bad") == words(tmp_path, "good")
    executor.close()


def test_a_dead_drivers_joint_attempt_is_ended_before_one_of_its_cells_goes_again(here: Cluster, tmp_path: Path):
    first = made(tmp_path, 200)
    first.submit(Attempt("one", "one"))
    until((tmp_path / "cells" / "one" / "count").is_file)
    (job,) = words(tmp_path, "one")
    second = made(tmp_path, 1)
    assert second._jobs == [job]
    second.submit(Attempt("two", "two", mates=(Attempt("one", "one"),)))
    assert job not in executor_jobs(here)
    assert second._jobs != [job]
    second.close()


def test_jobs_that_end_at_once_end_the_run_with_where_to_look(here: Cluster, tmp_path: Path):
    executor = made(tmp_path, 1, setup=["exit 3"])
    executor.submit(Attempt("one", "one"))
    with pytest.raises(StudyError, match=r"without doing anything; their words are in .*logs"):
        outcomes(executor, 1)
    executor.close()


def test_what_slurm_does_not_take_is_a_fault(here: Cluster, tmp_path: Path):
    executor = made(tmp_path, 1, partition="nowhere")
    with pytest.raises(StudyError, match="Slurm does not take the job"):
        executor.submit(Attempt("one", "one"))
    executor.close()


# A real study.


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    return write_study(folder / "study", make_model(folder / "model"))


def bystander(*arguments, env) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, *map(str, arguments)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(study: Path, folder: Path, env, *sets: str) -> subprocess.Popen[str]:
    return bystander("run", study, "--out", folder, "--json", *(w for one in sets for w in ("--set", one)), env=env)


def ended_well(process: subprocess.Popen[str]) -> None:
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, out[-500:] + err[-3000:]


@pytest.fixture(scope="module")
def local(study: Path) -> Path:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    ended_well(run(study, study.parent / "local", env))
    return study.parent / "local"


def assert_equal(folder: Path, local: Path) -> None:
    for name in ("measurements.parquet", "similarities.parquet", "personas.parquet"):
        assert (folder / name).read_bytes() == (local / name).read_bytes(), name


def held_in_training(cluster: Cluster, box: Mailbox) -> str:
    """A job that is in the midst of a training, suspended, so that what follows meets it there."""

    def found() -> str:
        for job, cell in box.working().items():
            if cell.startswith("train-"):
                cluster("scontrol", "suspend", job)
                if box.working().get(job) == cell:
                    return job
                cluster("scontrol", "resume", job)
        return ""

    return until(found, 200, 0.02)


def test_two_workers_one_cancelled_mid_cell_measure_what_one_process_measures(
    here: Cluster, study: Path, local: Path, tmp_path: Path
):
    process = run(study, tmp_path / "run", here.env, *SLURM)
    job = held_in_training(here, Mailbox(tmp_path / "run" / "slurm"))
    here("scancel", job)
    ended_well(process)
    assert_equal(tmp_path / "run", local)
    events = (tmp_path / "run" / "events.jsonl").read_text()
    assert f"Slurm job {job} is gone" in events
    assert "again on another worker" in events
    until(lambda: not executor_jobs(here))  # nothing of it is left in the queue


def test_a_dead_drivers_jobs_are_found_by_status_and_by_the_next_run(
    here: Cluster, study: Path, local: Path, tmp_path: Path
):
    folder = tmp_path / "run"
    process = run(study, folder, here.env, *SLURM)
    job = held_in_training(here, Mailbox(folder / "slurm"))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = set(Mailbox(folder / "slurm").jobs())
    told = bystander("status", folder, "--json", env=here.env)
    status = json.loads(told.communicate(timeout=100)[0])
    assert status["state"] == "stopped"
    (held,) = [one for one in status["jobs"] if one["id"] == job]
    assert held["state"] == "SUSPENDED"
    assert held["cell"].startswith("train-")
    here("scontrol", "resume", job)
    ended_well(run(study, folder, here.env, *SLURM))
    assert_equal(folder, local)
    worked = {file.name.partition("_")[0] for file in (folder / "slurm" / "logs").glob("*_log.out")}
    assert worked == before  # no job but those of the first driver


# What needs no Slurm.


def test_without_slurm_the_study_is_refused_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("submitit", reason="submitit is an extra: pip install 'bystander[slurm]'")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StudyError, match=r"no Slurm here.*login node"):
        made(tmp_path, 1)


def test_the_mailbox_gives_an_attempt_to_one_job_and_back_to_the_same_after_a_requeue(tmp_path: Path):
    box = Mailbox(tmp_path)
    attempt = Attempt("a" * 40, "train-x", 2, 1)
    name = box.put(attempt)
    assert box.take("7") == (name, attempt)
    assert box.take("8") is None
    assert box.take("7") == (name, attempt)  # requeued: the same job takes up what it had
    assert box.working() == {"7": "train-x"}
    assert box.at(Attempt(attempt.key, "x")) == {name: True}
    assert box.at(Attempt("c" * 40, "x", mates=(Attempt(attempt.key, "x"),))) == {name: False}
    assert box.at(Attempt("c" * 40, "x")) == {}
    failure = CellFailure("never", "why", "ValueError")
    ended = Outcome(attempt, 1.5, failure, mates=(Outcome(Attempt("b" * 40, "train-y"), 2.0),))
    box.finish(name, "7", ended)
    assert box.outcome(name) == ended
    assert box.outcome(name) is None
    assert box.working() == {}


def test_a_new_driver_keeps_only_what_live_jobs_work_on(tmp_path: Path):
    box = Mailbox(tmp_path)
    for key, job in (("a" * 40, "7"), ("b" * 40, "8")):
        box.put(Attempt(key, key))
        box.take(job)
    box.put(Attempt("c" * 40, "c"))
    box.clear({"8"})
    assert box.working() == {"8": "b" * 40}
    assert box.take("9") is None
