"""Many runs side by side: the board, the comparison, the export, the archive; from the command line."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

from bystander.cli import main as cli
from bystander.core.errors import StoreError
from bystander.engine.run import run_study
from bystander.results.many_runs import board, card, run_folders
from bystander.study.config.study import load
from tests.support.study_tiny import write_study


@pytest.fixture(scope="module")
def runs(tiny_run: Path, tmp_path_factory) -> Path:
    """A folder with a finished run and one that the gate stopped."""
    root = tmp_path_factory.mktemp("many")
    shutil.copytree(tiny_run, root / "runs" / "done")
    model = tiny_run.parent / "model"
    stopped = load(str(write_study(root / "b", model, threshold=1.0)), ["name=stopped"])
    run_study(stopped, root / "runs" / "stopped")
    return root / "runs"


def test_the_board_has_a_card_for_every_run_in_its_state(runs: Path, tmp_path: Path):
    folders = run_folders([runs])
    assert [folder.name for folder in folders] == ["done", "stopped"]
    cards = {one.study: one for one in (card(folder, tmp_path) for folder in folders)}
    assert (cards["tiny"].state, cards["stopped"].state) == ("done", "gated")
    assert cards["tiny"].cells_done == cards["tiny"].cells_total == 18
    assert cards["stopped"].verdict.startswith("stopped at the gate: ")
    assert [event.name for event in cards["tiny"].timeline][:3] == ["clarified", "planned", "reviewed"]
    assert ("fixed", "open") in cards["stopped"].hypotheses
    page = board([runs], tmp_path / "board.html").read_text()
    assert "tiny" in page
    assert "stopped at the gate" in page
    with pytest.raises(StoreError, match="no run directory at"):
        run_folders([tmp_path / "nowhere"])


def command(*words: str, monkeypatch, capsys) -> str:
    monkeypatch.setattr("sys.argv", ["bystander", *words])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code in (0, None), capsys.readouterr().err
    return capsys.readouterr().out


def test_export_writes_every_table_with_a_dictionary(runs: Path, tmp_path: Path, monkeypatch, capsys):
    command("export", str(runs / "done"), "--to", str(tmp_path / "out"), monkeypatch=monkeypatch, capsys=capsys)
    frame = pl.read_parquet(tmp_path / "out" / "measurements.parquet")
    assert pl.read_csv(tmp_path / "out" / "measurements.csv", infer_schema_length=None).height == frame.height
    dictionary = (tmp_path / "out" / "DICTIONARY.md").read_text()
    for table in ("measurements", "similarity_correlation", "leakage_ratio", "personas"):
        assert f"## {table}\n" in dictionary
    assert "| checkpoint | Float64 | fraction of training in [0, 1]; 0 is the untrained model |" in dictionary


def test_status_and_archive_from_the_command_line(runs: Path, monkeypatch, capsys):
    found = json.loads(command("status", str(runs / "stopped"), "--json", monkeypatch=monkeypatch, capsys=capsys))
    assert found["state"] == "gated"
    assert found["phases"][1]["counts"]["done"] == 9
    command("archive", str(runs / "stopped"), monkeypatch=monkeypatch, capsys=capsys)
    after = json.loads(command("status", str(runs / "stopped"), "--json", monkeypatch=monkeypatch, capsys=capsys))
    assert after["state"] == "archived"


def test_the_plan_from_the_command_line_writes_nothing(runs: Path, tiny_run: Path, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    study = str(tiny_run.parent / "study" / "tiny.yaml")
    found = json.loads(command("plan", study, "--json", monkeypatch=monkeypatch, capsys=capsys))
    assert found["review"]["verdict"] == "MODIFY", "so few bystanders can show nothing, and that is said"
    assert found["review"]["score"] < 5
    assert found["forecast"]["hours"] > 0
    assert list(tmp_path.iterdir()) == []
    text = command("plan", study, "--out", str(runs / "done"), monkeypatch=monkeypatch, capsys=capsys)
    assert "Open questions" in text
    assert "Power" in text
