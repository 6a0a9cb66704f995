"""Mirrors in trackers: what they are told, and that a tracker in any trouble costs a study one warning and nothing else."""

import importlib.util
import os
from pathlib import Path

import pytest

from bystander.core.files import read_lines
from bystander.engine import track
from bystander.engine.run import run_study
from bystander.engine.track_mirror import Mirror
from bystander.engine.trackers import TRACKERS
from bystander.study.config.study import load
from bystander.study.store.run_dir import RunDir
from tests.support.study_tiny import make_model, write_study

ROOT = Path(__file__).resolve().parents[2]
TABLES = ("measurements.parquet", "similarities.parquet", "personas.parquet")
# A tracker that writes what it is told into $TOLD, until $TROUBLE comes at its fifth call.
STAND_IN = """
import json, os, time
calls = 0
def _call(what, **details):
    global calls
    calls += 1
    trouble = os.environ.get("TROUBLE", "")
    if trouble == "login":
        raise RuntimeError("no API key configured: run `login` " + input("key? "))
    if calls == 5 and trouble == "offline":
        raise ConnectionError("Name or service not known")
    if calls == 5 and trouble == "disk":
        with open("/dev/full", "w") as full:
            full.write("x")
    if calls == 5 and trouble == "killed":
        os.kill(os.getpid(), 9)
    if calls == 5 and trouble == "hangs":
        time.sleep(600)
    with open(os.environ["TOLD"], "a") as told:
        told.write(json.dumps({"what": what, **details}) + "\\n")
def init(**details): _call("open", **details)
def log(values, step): _call("log", values=values, step=step)
def finish(): _call("end")
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("track")
    return write_study(folder / "study", make_model(folder / "model"))


@pytest.fixture(scope="module")
def plain(study: Path) -> Path:
    """The study without a tracker."""
    run_study(load(str(study)), study.parent / "plain")
    return study.parent / "plain"


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`trackio` is the stand-in; what it is told goes into the file that comes back."""
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "trackio.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "packages"), str(ROOT / "src")]))
    monkeypatch.setenv("TOLD", str(tmp_path / "told.jsonl"))
    monkeypatch.setattr(track, "PATIENCE", 60.0)
    return tmp_path / "told.jsonl"


def warnings(summary) -> list[str]:
    return [one.message for one in summary.findings if one.check == "track"]


def assert_same_bits(folder: Path, plain: Path) -> None:
    for name in TABLES:
        assert (folder / name).read_bytes() == (plain / name).read_bytes(), name


def test_a_tracker_is_told_losses_probes_and_the_course_of_the_study(
    study: Path, plain: Path, tmp_path: Path, stand_in: Path
):
    summary = run_study(load(str(study), ["track={}"]), tmp_path / "run")
    assert warnings(summary) == []
    assert_same_bits(tmp_path / "run", plain)
    told = read_lines(stand_in)
    opened = [one for one in told if one["what"] == "open"]
    trainings = [cell.name for cell in RunDir(tmp_path / "run").plan().cells if cell.kind == "train"]
    assert {one["name"] for one in opened} == {f"tiny/{name}" for name in ("study", *trainings)}
    assert {one["group"] for one in opened} == {"tiny"}
    logged: dict[str, list] = {}
    for one in told:
        if one["what"] == "open":
            here = logged.setdefault(one["name"], [])
        elif one["what"] == "log":
            here.append(one)
    losses = [one["step"] for one in logged[f"tiny/{trainings[-1]}"] if "loss" in one["values"]]
    assert losses == sorted(set(losses))
    assert len(losses) == 6  # 12 rows, batches of 4, two epochs
    probed = [one for one in logged[f"tiny/{trainings[-1]}"] if "marker/bank/marker_logprob/source" in one["values"]]
    assert [one["step"] for one in probed] == [3, 6]  # half of the training, and its end
    last = logged["tiny/study"][-1]["values"]
    done = sum(event.kind == "cell done" for event in RunDir(tmp_path / "run").events())
    assert last["cells done"] == done > 0
    assert last["device hours"] > 0
    assert last["forecast hours"] > 0


@pytest.mark.parametrize("trouble", ["offline", "login", "disk", "killed"])
def test_trouble_costs_one_warning_and_no_bit(
    trouble: str, study: Path, plain: Path, tmp_path: Path, stand_in: Path, monkeypatch
):
    monkeypatch.setenv("TROUBLE", trouble)
    summary = run_study(load(str(study), ["track={to: trackio}"]), tmp_path / "run")
    assert not summary.failed
    assert not summary.left
    assert_same_bits(tmp_path / "run", plain)
    (warning,) = warnings(summary)
    assert "trackio does not have all of this run" in warning
    says = {"offline": "Name or service", "login": "EOF", "disk": "No space left", "killed": "code -9"}
    assert says[trouble] in warning


def test_a_tracker_that_hangs_is_left_behind(study: Path, plain: Path, tmp_path: Path, stand_in: Path, monkeypatch):
    monkeypatch.setenv("TROUBLE", "hangs")
    monkeypatch.setattr(track, "PATIENCE", 0.5)
    summary = run_study(load(str(study), ["track={}"]), tmp_path / "run")
    assert_same_bits(tmp_path / "run", plain)
    assert ["did not end within" in one for one in warnings(summary)] == [True]


def test_a_tracker_that_is_not_installed_is_a_warning(study: Path, tmp_path: Path, monkeypatch):
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "wandb.py").write_text("raise ModuleNotFoundError(\"No module named 'wandb'\")")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "packages"), str(ROOT / "src")]))
    tracking = track.Tracking(load(str(study), ["track={to: wandb}"]).spec.track, tmp_path)
    (found,) = tracking.end()
    assert "No module named 'wandb'" in found.message


def test_where_nothing_can_be_written_the_study_goes_on(study: Path, tmp_path: Path):
    (tmp_path / "track").write_text("a file where the folder would be")
    (found,) = track.Tracking(load(str(study), ["track={}"]).spec.track, tmp_path).end()
    assert "cannot be started" in found.message
    assert "the run itself is whole" in found.message


def test_the_mirror_ends_when_the_studys_process_is_gone(study: Path, plain: Path, tmp_path: Path, stand_in: Path):
    """The pipe closes however the process ends, and the mirror with it."""
    tracking = track.Tracking(load(str(study), ["track={}"]).spec.track, plain)
    process = tracking._process
    os.close(tracking._pipe)  # as the operating system does for a process that is killed
    assert process.wait(60) == 0
    tracking._pipe = -1


def test_where_a_study_is_tracked_is_not_what_it_is(study: Path):
    assert load(str(study)).identity == load(str(study), ["track={to: mlflow, project: mine}"]).identity


# The trackers themselves, each where it is installed.

OFFLINE = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}


@pytest.mark.parametrize("name", TRACKERS)
@pytest.mark.filterwarnings("ignore")
def test_the_real_tracker_takes_the_mirror(name: str, plain: Path, tmp_path: Path, monkeypatch):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is an extra: pip install 'bystander[{name}]'")
    for key, value in (OFFLINE | {"TRACKIO_DIR": str(tmp_path / "trackio")}).items():
        monkeypatch.setenv(key, value)
    mirror = Mirror(RunDir(plain), TRACKERS[name]("mine", tmp_path))
    mirror.look()
    mirror.look()  # nothing is new: nothing is told twice
    found = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    assert found > 1000
