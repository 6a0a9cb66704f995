"""Nothing is lost in a traceback: whatever a user gives, a command answers (0) or says what is wrong (2)."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from pathlib import Path

import pytest

from bystander.cli import main as cli
from tests.support.command import call
from tests.support.random_inputs import COMMANDS, Inputs, RandomInput
from tests.support.study_tiny import make_model

FAST, ALL, BLOCK = 30, 200, 34


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, embedded: Path) -> Inputs:
    from bystander.lm.model import fresh_adapter, load, save_adapter
    from bystander.train.recipe import Lora

    folder = tmp_path_factory.mktemp("inputs")
    model = make_model(folder / "model")
    loaded = load(str(model), device="cpu")
    adapter = fresh_adapter(loaded, Lora(rank=2).peft(), 0)
    for name, parameter in adapter.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.1)
    save_adapter(adapter, folder / "adapter", loaded.base_id, loaded.base_hash)
    loaded.remove_adapter()
    (folder / "room").mkdir()
    return Inputs(model, folder / "adapter", folder / "room")


def answered(one: RandomInput, room: Path) -> str:
    """Nothing where the command answered or said what is wrong; else what it did."""
    before = Path.cwd()
    os.chdir(room)
    sys.argv = ["bystander", *one.words]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as the command runs: a library's warning is no error there
            cli.main()
    except SystemExit as stopped:
        return "" if stopped.code in (0, 2, None) else f"exit code {stopped.code}"
    except BaseException:
        return traceback.format_exc(limit=-6)
    finally:
        os.chdir(before)
    return ""


def check(inputs: Inputs, numbers: range, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    lost: list[str] = []
    codes = 0
    for number in numbers:
        one = inputs.make(number)
        said = answered(one, inputs.room)
        error = capsys.readouterr().err
        codes += "error: " in error or "Usage" in error
        if said or "Traceback" in error:
            lost.append(f"input {number} ({one.what}): {' '.join(one.words)[:300]}\n{said or error[-1500:]}")
    assert lost == [], "\n\n".join(lost)
    assert codes > len(numbers) / 3, "inputs of which hardly any is broken test little"


def test_thirty_random_inputs(inputs: Inputs, monkeypatch, capsys):
    check(inputs, range(FAST), monkeypatch, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(FAST, ALL, BLOCK))
def test_two_hundred_random_inputs(first: int, inputs: Inputs, monkeypatch, capsys):
    check(inputs, range(first, first + BLOCK), monkeypatch, capsys)


def test_an_input_is_the_same_at_every_call(inputs: Inputs, tmp_path: Path):
    again = Inputs(inputs.model, inputs.adapter, tmp_path)
    other = Inputs(inputs.model, inputs.adapter, tmp_path / "other")
    other.room.mkdir()
    for number in range(len(COMMANDS)):
        first, second = again.make(number), other.make(number)
        assert first.what == second.what
        assert [w.replace(str(again.room), "") for w in first.words] == [
            w.replace(str(other.room), "") for w in second.words
        ]


def test_a_name_that_is_too_long_is_a_message(capsys, inputs: Inputs):
    for words in (
        ["analyze", "x" * 300],
        ["probe", "--model", str(inputs.model), "--probe", "marker", "--adapter", "x" * 300],
    ):
        code, _, error = call(capsys, *words)
        assert code == 2
        assert "File name too long; give another path" in error


@pytest.mark.parametrize("separator", [";", "\t", ","])
def test_tables_of_spreadsheets_are_read(tmp_path: Path, capsys, separator: str):
    rows = [
        ["source", "persona", "leakage", "similarity"],
        *(["villain", f"p{i}", str(i / 9), str(i * i)] for i in range(9)),
    ]
    (tmp_path / "t.csv").write_text("\n".join(separator.join(row) for row in rows))
    code, out, error = call(capsys, "analyze", tmp_path / "t.csv")
    assert code == 0, error
    assert "1.000" in out


def test_the_advice_for_a_column_is_one_that_works(tmp_path: Path, capsys):
    (tmp_path / "t.csv").write_text(
        "origin,persona,leakage,similarity\n" + "".join(f"v,p{i},{i},{i}\n" for i in range(6))
    )
    code, _, error = call(capsys, "analyze", tmp_path / "t.csv")
    assert code == 2
    assert "rename it to source (in Python: source=COLUMN)" in error
    (tmp_path / "t.csv").write_text(
        (tmp_path / "t.csv").read_text().replace("origin", "source").replace("leakage", "moved")
    )
    code, _, error = call(capsys, "analyze", tmp_path / "t.csv")
    assert "name it by --leakage COLUMN" in error
    assert call(capsys, "analyze", tmp_path / "t.csv", "--leakage", "moved")[0] == 0
