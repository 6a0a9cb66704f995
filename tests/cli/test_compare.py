"""`bystander compare` on two real runs that differ in one setting, and on folders that are no runs."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch

from bystander.engine.run import run_study
from bystander.results.results import Results
from bystander.study.config.study import load
from tests.support.command import call
from tests.support.report_page import Elements
from tests.support.study_tiny import make_model, write_study


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> tuple[Path, Path]:
    """The tiny study twice, the second time trained for one epoch less, without its sweep."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    file = write_study(tmp_path_factory.mktemp("study"), make_model(tmp_path_factory.mktemp("model")))
    folder = tmp_path_factory.mktemp("runs")
    once = ("sweep=null", "gate=null", "checkpoints.every=1.0")
    for name, epochs in (("long", 2), ("short", 1)):
        run_study(load(str(file), [*once, f"recipe.epochs={epochs}"]), folder / name)
    torch.set_num_threads(before)
    return folder / "long", folder / "short"


def test_the_page_names_what_differs_and_has_a_row_for_each_gradient(runs, capsys, tmp_path):
    code, out, err = call(capsys, "compare", *runs, "--out", tmp_path / "page.html")
    assert (code, err) == (0, "")
    assert "page.html" in out
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    differ = text[text.index("recipe.epochs") :]
    assert re.findall(r'data-record="(\w+):inputs/settings/recipe.epochs"[^>]*>([^<]*)<', differ) == [
        ("long", "2"),
        ("short", "1"),
    ]
    assert "recipe.lr<" not in text
    rows = {
        attributes["data-row"] for tag, attributes in Elements(text).tags if tag == "tr" and "data-row" in attributes
    }
    for name, folder in zip(("long", "short"), runs, strict=True):
        tests = Results.open(folder).similarity_correlation()
        claimed = tests.filter(
            (tests["method"] == "cosine") & (tests["layer"] == 1) & (tests["metric"] == "marker_probability")
        )
        assert claimed["source"].unique().sort().to_list() == ["comedian", "villain"]
        assert {f"{name}:{record}" for record in claimed.filter(claimed["seed"].is_null())["record"]} <= rows


def missing(folder: Path) -> Path:
    return folder.with_name("nowhere")


def empty(folder: Path) -> Path:
    shutil.rmtree(folder)
    folder.mkdir()
    return folder


def without_measurements(folder: Path) -> Path:
    (folder / "measurements.parquet").unlink()
    return folder


def damaged(name: str):
    def damage(folder: Path) -> Path:
        (folder / name).write_text("{half a rec")
        return folder

    return damage


BROKEN = {
    "missing": (missing, "is not a run directory"),
    "empty": (empty, "is not a run directory"),
    "not measured yet": (without_measurements, "has no measurements yet"),
    **{
        f"damaged {name}": (damaged(name), name)
        for name in ("study.yaml", "personas.json", "provenance.json", "measurements.parquet", "similarities.parquet")
    },
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_run_is_one_clear_error(fault, runs, capsys, tmp_path):
    spoil, message = BROKEN[fault]
    copy = shutil.copytree(runs[1], tmp_path / "copy")
    (copy / "analysis.json").unlink(missing_ok=True)
    code, out, err = call(capsys, "compare", runs[0], spoil(copy), "--out", tmp_path / "page.html")
    assert code == 2, (out, err)
    assert err.startswith("error: ")
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "page.html").exists()


def test_one_run_cannot_be_compared(runs, capsys, tmp_path):
    code, _, err = call(capsys, "compare", runs[0], "--out", tmp_path / "page.html")
    assert code == 2
    assert "two studies or more" in err


def test_runs_whose_folders_share_a_name_are_told_apart_by_their_parents(runs, capsys, tmp_path):
    long = shutil.copytree(runs[0], tmp_path / "long" / "run")
    short = shutil.copytree(runs[1], tmp_path / "short" / "run")
    code, _, err = call(capsys, "compare", long, short, "--out", tmp_path / "page.html")
    assert (code, err) == (0, "")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    shown = re.findall(r'data-record="([^":]+):inputs/settings/recipe.epochs"[^>]*>([^<]*)<', page)
    assert shown == [("long/run", "2"), ("short/run", "1")]


def test_a_run_that_is_given_twice_is_said(runs, capsys, tmp_path):
    (tmp_path / "link").symlink_to(runs[0])
    code, _, err = call(capsys, "compare", runs[0], tmp_path / "link", "--out", tmp_path / "page.html")
    assert code == 2
    assert f"the run at {runs[0]} is given twice" in err
