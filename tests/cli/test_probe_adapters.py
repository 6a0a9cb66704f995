"""`bystander probe --source`: an adapter that exists is measured as a run measures its own, to the same numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from bystander.results.results import Results
from bystander.results.status import status
from bystander.study.store.run_dir import RunDir
from tests.support.command import call
from tests.support.probed import NEGATIVES, ODD, adapters, both, command
from tests.support.study_tiny import make_model


def test_the_numbers_are_those_of_the_run_that_trained_the_adapters(ran: RunDir, probed: Path):
    ours, theirs = Results.open(probed).analysis, Results.open(ran.path).analysis
    # What the training itself is called differs: the user knows of it no arm, recipe or seed.
    named = ["source", "probe", "dataset", "metric"]
    for table, keys in {
        "leakage": [
            *named,
            "persona",
            "role",
            "category",
            "before",
            "after",
            "leakage",
            "low",
            "high",
            "n_items",
            "status",
        ],
        "similarity_correlation": [
            *named,
            "method",
            "layer",
            "n",
            "rho",
            "low",
            "high",
            "p",
            "p_within_category",
            "status",
        ],
        "leakage_ratio": [*named, "source_leakage", "bystander_leakage", "status"],
        "roles": [*named, "role", "leakage", "low", "high"],
        "pooled": ["probe", "dataset", "metric", "method", "layer", "n_sources", "n", "rho", "low", "high", "p_matrix"],
    }.items():
        a, b = (one.tables()[table].select(keys).sort(keys) for one in (ours, theirs))
        assert a.height > 0, table
        assert_frame_equal(a, b, check_exact=True)


def test_negatives_are_no_bystanders(probed: Path):
    analysis = Results.open(probed).analysis
    assert set(analysis.similarity_correlation["n"]) == {5}  # eight personas without the source and two negatives
    roles = {
        row["persona"]: row["role"] for row in analysis.leakage.filter(source="villain", context="persona").to_dicts()
    }
    assert roles == {
        "villain": "source", "pirate": "negative", "spy": "negative",
        **dict.fromkeys(("comedian", "librarian", "chef", "gardener", "judge"), "held-out"),
    }  # fmt: skip


def test_what_is_left_is_a_run_directory(probed: Path, ran: RunDir, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    run = RunDir(probed)
    assert sorted(cell.manifest().name.split("-")[0] for cell in run.complete_cells()) == [
        *["after"] * 4, "base", "base", "geometry",
    ]  # fmt: skip
    assert status(run).state == "done"
    assert Results.open(probed).report_input().completions
    page = run.report_file.read_text()
    assert "recipe.lr" not in page  # the quickstart's: of these trainings it is not known
    assert "negatives pirate, spy, absent, assistant" in page
    assert (probed / "figures").is_dir()
    for words in (
        ("report", probed),
        ("export", probed, "--to", tmp_path / "tables"),
        ("board", probed.parent, "--out", tmp_path / "b.html"),
    ):
        assert call(capsys, *words)[0] == 0
    assert call(capsys, "compare", ran.path, probed, "--out", tmp_path / "c.html")[0] == 0


def test_for_a_program(ran: RunDir, probed: Path, capsys: pytest.CaptureFixture[str]):
    """Given again the same call measures nothing: its folder has it all."""
    before = {path: path.stat().st_mtime_ns for path in (probed / "cells").rglob("*")}
    code, out, err = call(capsys, *command(ran, probed, *both(ran), "--negatives", NEGATIVES, "--json"))
    assert code == 0, err
    value = json.loads(out)
    assert {path: path.stat().st_mtime_ns for path in (probed / "cells").rglob("*")} == before
    assert [(one["source"], one["negatives"]) for one in value["adapters"]] == [
        ("villain", NEGATIVES.split(",")), ("comedian", NEGATIVES.split(",")),
    ]  # fmt: skip
    rho = [
        r["rho"]
        for r in value["similarity_correlation"]
        if (r["method"], r["layer"], r["metric"]) == ("cosine", 1, "marker_logprob")
    ]
    assert len(rho) == 2
    assert value["report"] == str(probed / "report.html")


def test_two_adapters_of_one_source_are_told_apart_and_what_was_compared_is_shown(
    ran: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The base lies at another path: its weights are the same, and that is said. Another base is refused."""
    found = adapters(ran)
    elsewhere = shutil.copytree(ran.path.parent / "model", tmp_path / ODD)
    one_source = ["--adapter", found["villain"], "--adapter", found["comedian"], "--source", "villain"]
    words = command(ran, tmp_path / "out", *one_source)
    words[2] = elsewhere
    code, out, err = call(capsys, *words)
    assert code == 0, err
    assert "the weights are the same" in out
    table = Results.open(tmp_path / "out").analysis.leakage.filter(pl.col("persona") == "villain")
    assert table["config"].n_unique() == 2
    assert table["role"].unique().to_list() == ["source"]
    other = make_model(tmp_path / "other")
    import torch
    from safetensors.torch import load_file, save_file

    weights = load_file(other / "model.safetensors")
    save_file(
        {name: value + torch.ones(()) * 0.01 for name, value in weights.items()},
        other / "model.safetensors",
        {"format": "pt"},
    )
    words = command(ran, tmp_path / "second", "--adapter", found["villain"], "--source", "villain")
    words[2] = other
    code, _, err = call(capsys, *words)
    assert (code, "the weights differ" in err) == (2, True)
    assert not (tmp_path / "second").exists()
    code, out, err = call(capsys, *words, "--base-ok")
    assert (code, "put on all the same" in out) == (0, True), err


def test_without_a_source_every_adapter_is_measured_by_itself(
    ran: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    found = adapters(ran)
    words = command(ran, tmp_path / "m.csv", "--adapter", found["villain"], "--adapter", found["comedian"])
    code, _, err = call(capsys, *words)
    assert code == 0, err
    table = pl.read_csv((tmp_path / "m.csv").read_bytes())
    own = Results.open(ran.path).measurements
    for source, folder in found.items():
        a = table.filter(pl.col("adapter") == str(folder)).select("persona", "item", "metric", "value")
        b = own.filter(pl.col("source") == source, pl.col("checkpoint") == 1.0, pl.col("context") == "persona").select(
            "persona", "item", "metric", "value"
        )
        assert_frame_equal(a.sort(a.columns[:3]), b.sort(b.columns[:3]), rel_tol=1e-12)


FAULTS = {
    "no adapter": (["--source", "villain"], "give one with --adapter"),
    "an unknown source": (["--adapter", "A", "--source", "vilain"], "did you mean 'villain'?"),
    "an unknown negative": (["--adapter", "A", "--source", "villain", "--negatives", "pirat"], "pirat is not among the 8"),
    "its own negative": (["--adapter", "A", "--source", "villain", "--negatives", "villain"], "'villain' is the source"),
    "sources that do not match": (["--adapter", "A", "--adapter", "B", "--source", "spy", "--source", "chef", "--source", "judge"], "3 times for 2"),
    "one adapter twice": (["--adapter", "A", "--adapter", "A", "--source", "villain"], "given twice"),
    "the same weights twice": (["--adapter", "A", "--adapter", "C", "--source", "villain"], "the very weights"),
    "negatives without a source": (["--adapter", "A", "--negatives", "spy"], "--source too"),
    "a layer too deep": (["--adapter", "A", "--source", "villain", "--set", "geometry.layer=9"], "layers 0 to 2"),
    "no adapter there": (["--adapter", "nowhere", "--source", "villain"], "no such folder"),
    "a file for a folder": (["--adapter", "A", "--source", "villain", "--out", "x.csv"], "name a folder"),
    "a probe that is not there": (["--adapter", "A", "--source", "villain", "--probe", "magic"], "no probe 'magic'; known: choice"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_what_does_not_fit_is_said_before_anything_is_measured(
    name: str, ran: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    found = adapters(ran)
    for folder, source in (("A", "villain"), ("B", "comedian"), ("C", "villain")):
        shutil.copytree(found[source], tmp_path / folder)
    before = sorted(tmp_path.rglob("*"))
    more, message = FAULTS[name]
    code, out, err = call(capsys, *command(ran, tmp_path / "out"), *more)
    assert (code, message in err) == (2, True), (out, err)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_probe_that_is_cut_off_goes_on(
    ran: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from bystander.probe.marker import MarkerProbe

    whole, seen = MarkerProbe.run, 0

    def cut(self, loaded, contexts, done=()):
        nonlocal seen
        for unit in whole(self, loaded, contexts, done):
            seen += 1
            if seen == 12:  # of nine for each state of the model
                raise KeyboardInterrupt
            yield unit

    words = command(ran, tmp_path / "out", "--adapter", adapters(ran)["villain"], "--source", "villain")
    monkeypatch.setattr(MarkerProbe, "run", cut)
    code, _, err = call(capsys, *words)
    assert (code, "give the same command again" in err) == (130, True)
    code, _, err = call(capsys, *words)
    assert code == 0, err
    assert seen == 2 * (9 + 5) + 1  # the one that was cut off is measured again, and nothing else
