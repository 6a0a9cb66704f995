"""Run directories and files under any name, run directories that may not be written, and outputs that cannot be."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from bystander.core.errors import DataError, StoreError
from bystander.core.faults import RowFaults
from bystander.core.files import write_bytes, write_json
from bystander.core.record_files import read_records
from bystander.results.results import Results
from bystander.study.forecast.prior_results import gradients, import_results
from bystander.study.store.cell_dir import CELLS_KEPT, CellDir
from bystander.study.store.kept_files import kept_copy, kept_files
from bystander.study.store.records import CellManifest
from bystander.study.store.run_dir import RunDir
from tests.support.command import call
from tests.support.probed import ODD

TABLE = pl.DataFrame(
    {"source": ["s"] * 6, "persona": list("abcdef"), "leakage": [0.1, 0.2, 0.3, 0.4, 0.5, 0.7], "similarity_x": [1.0, 2, 3, 4, 5, 6]}
)  # fmt: skip


def test_every_command_on_a_run_whose_name_looks_like_a_pattern(
    ran: RunDir, probed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run = shutil.copytree(ran.path, tmp_path / ODD)
    for words, written in (
        (("status", run), None),
        (("report", run), run / "report.html"),
        (("report", run, "--out", tmp_path / f"{ODD}.html"), tmp_path / f"{ODD}.html"),
        (("export", run, "--to", tmp_path / f"{ODD} tables"), tmp_path / f"{ODD} tables"),
        (("compare", run, probed, "--out", tmp_path / f"c{ODD}.html"), tmp_path / f"c{ODD}.html"),
        (("board", tmp_path, "--out", tmp_path / f"b{ODD}.html"), tmp_path / f"b{ODD}.html"),
        (("archive", run), None),
    ):
        code, out, err = call(capsys, *words)
        assert code == 0, (words, err)
        if written is not None:
            assert written.exists()
            assert str(written) in out  # as it is, neither markup nor emoji
    assert Results.open(run).analysis.leakage.equals(Results.open(ran.path).analysis.leakage)


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl", "json"])
def test_tables_under_any_name(ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / f"{ODD}.{ending}"
    decoy = tmp_path / f"a1 bcd [red]x :smile:.{ending}"  # what the name would mean as a pattern
    {
        "csv": TABLE.write_csv, "parquet": TABLE.write_parquet, "jsonl": TABLE.write_ndjson, "json": TABLE.write_json,
    }[ending](tmp_path / "plain")  # fmt: skip
    (tmp_path / "plain").rename(path)
    decoy.write_text("no table")
    code, out, err = call(capsys, "import", path, "--to", tmp_path / "prior [x]", "--json")
    assert code == 0, err
    kept = [Path(one) for one in json.loads(out)]
    assert [found.n for found in gradients(kept, [])] == [6]
    if ending in ("csv", "parquet"):
        code, out, err = call(capsys, "analyze", path, "--json")
        assert code == 0, err
        assert json.loads(out)["similarity_correlation"][0]["rho"] == pytest.approx(1.0)
    if ending == "parquet":
        assert len(read_records(path, RowFaults(str(path)))) == 6


def test_two_imports_never_take_one_name(tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        TABLE.write_csv(tmp_path / name / "x.csv")
    with pytest.raises(DataError, match=r"would both be kept as .*x\.parquet"):
        import_results([tmp_path / "a" / "x.csv", tmp_path / "b" / "x.csv"], {}, tmp_path / "prior")
    assert not (tmp_path / "prior").exists()


ALL = """
import contextlib, io, json, sys
from bystander.cli import main as cli
done = []
for words in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    sys.argv, code = ["bystander", *words], 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as stopped:
            code = stopped.code or 0
    done.append((code, err.getvalue()))
print(json.dumps(done))
"""


def without_rights(*commands: tuple[object, ...]) -> list[tuple[int, str]]:
    """The commands in one process with the rights of an ordinary user (root without its power to pass over a folder's
    mode): exit code and standard error of each."""
    argv = [sys.executable, "-c", ALL, json.dumps([[str(word) for word in words] for words in commands])]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root may write anywhere, and there is no setpriv to take that from it")
        power = "-dac_override,-dac_read_search"
        argv = ["setpriv", f"--bounding-set={power}", f"--inh-caps={power}", *argv]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return [(code, err) for code, err in json.loads(done.stdout)]


@pytest.fixture
def read_only(ran: RunDir, tmp_path: Path):
    """A copy of a run in which nothing may be written, without an analysis or a report."""
    run = shutil.copytree(ran.path, tmp_path / "run")
    shutil.rmtree(run / "figures")
    for name in ("analysis.json", "report.html"):
        (run / name).unlink()
    inside = [run, *run.rglob("*")]
    for path in inside:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield run
    for path in inside:
        path.chmod(0o755 if path.is_dir() else 0o644)


def test_a_run_that_may_not_be_written_is_read_all_the_same(read_only: Path, probed: Path, tmp_path: Path):
    before = {path: path.stat().st_mtime_ns for path in [read_only, *read_only.rglob("*")]}
    (tmp_path / "out").mkdir()
    commands: dict[tuple[object, ...], str] = {
        ("status", read_only): "",
        ("report", read_only, "--out", tmp_path / "out" / "r.html"): "r.html",
        ("board", read_only, "--out", tmp_path / "out" / "b.html"): "b.html",
        ("export", read_only, "--to", tmp_path / "out" / "tables"): "tables",
        ("compare", read_only, probed, "--out", tmp_path / "out" / "c.html"): "c.html",
    }
    refused = ("report", read_only), ("archive", read_only), ("judge", read_only, "--model", "openai/gpt-4o")
    done = without_rights(*commands, *refused)
    for (words, written), (code, err) in zip(commands.items(), done, strict=False):
        assert code == 0, (words, err[-2000:])
        assert (tmp_path / "out" / written).exists()
    for words, (code, err) in zip(refused, done[len(commands) :], strict=True):
        assert (code, err[:7]) == (2, "error: "), (words, err[-2000:])
        assert str(read_only) in err
    assert {path: path.stat().st_mtime_ns for path in [read_only, *read_only.rglob("*")]} == before


def test_only_the_store_says_that_cells_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write") as plain:
        write_json(tmp_path / "file" / "x.json", 1)
    assert "cells" not in str(plain.value)
    with pytest.raises(StoreError, match=CELLS_KEPT):
        CellDir(tmp_path / "file").finish([], CellManifest("data", "data", "0"))

    def full(_path: Path, *_more: object):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(StoreError, match=r"no space left while writing .*/y: free some space and run again"):
        write_bytes(tmp_path / "y", b"")


def test_an_output_that_cannot_be_written_is_said_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ran: RunDir
):
    (tmp_path / "file").write_text("")

    def work(*_words: object, **_more: object):
        raise AssertionError("the work has begun")

    monkeypatch.setattr(Results, "report", work)
    monkeypatch.setattr("bystander.study.forecast.calibrate.calibrate", work)
    code, _, err = call(capsys, "report", ran.path, "--out", tmp_path / "r.pdf")
    assert (code, "must end in .html" in err) == (2, True)
    code, _, err = call(capsys, "report", ran.path, "--out", tmp_path / "file" / "r.html")
    assert (code, "is a file" in err) == (2, True)
    monkeypatch.setenv("BYSTANDER_CACHE", str(tmp_path / "file"))
    code, _, err = call(capsys, "plan", "quickstart", "--calibrate")
    assert (code, "--calibrate" in err, "is a file" in err) == (2, True, True)


def test_a_run_keeps_the_files_that_its_study_names(ran: RunDir, tmp_path: Path):
    kept = {one.setting: one for one in kept_files(ran)}
    assert list(kept) == ["personas"]
    origin = ran.path.parent / "personas.yaml"
    assert kept["personas"].origin == str(origin)
    assert kept_copy(ran, "personas").read_bytes() == origin.read_bytes()
    run = RunDir(shutil.copytree(ran.path, tmp_path / "moved"))
    copy = kept_copy(run, "personas")
    assert copy.is_relative_to(run.path)
    copy.chmod(copy.stat().st_mode | stat.S_IWUSR)
    copy.write_text("changed")
    with pytest.raises(StoreError, match="missing or was changed"):
        kept_copy(run, "personas")
    assert kept_copy(run, "misalignment.questions") is None


def test_a_report_elsewhere_makes_the_tables_that_a_stop_left_out(ran: RunDir, tmp_path: Path, capsys):
    run = shutil.copytree(ran.path, tmp_path / "run")
    for name in ("analysis.json", "report.html", "measurements.parquet", "similarities.parquet", "tables.json"):
        (run / name).unlink()
    code, _, err = call(capsys, "report", run, "--out", tmp_path / "r.html")
    assert code == 0, err
    assert (tmp_path / "r.html").is_file()
    assert (run / "measurements.parquet").read_bytes() == ran.measurements_file.read_bytes()
