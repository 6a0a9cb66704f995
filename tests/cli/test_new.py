"""`bystander new` and `bystander schema`: a study file to begin with, and what an editor checks it by."""

import json
from pathlib import Path

import jsonschema
import pytest

from bystander.core.yamlfile import read_yaml
from bystander.study.config.json_schema import SCHEMA_FILE, schema_line, study_schema
from bystander.study.config.study import built_in, load
from tests.support.command import call

SHIPPED = next(iter(built_in().values())).parent


def faults(data) -> list[str]:
    return [error.message for error in jsonschema.Draft202012Validator(study_schema()).iter_errors(data)]


def shipped(name):
    return read_yaml(built_in()[name].read_text()).data


def test_the_schema_that_ships_is_that_of_the_settings(capsys):
    code, out, _ = call(capsys, "schema")
    assert code == 0
    assert (SHIPPED / SCHEMA_FILE).read_text() == out, "run `make generated`"


@pytest.mark.parametrize("name", built_in())
def test_studies_that_ship_name_the_schema_and_fit_it(name):
    assert built_in()[name].read_text().splitlines()[0] == schema_line()
    assert faults(shipped(name)) == []


@pytest.mark.parametrize(
    "change",
    [
        {"sources": []}, {"recipe": {"learning_rate": 1e-4}}, {"model": {"dtype": "float64"}}, {"geometry": {"layer": -1}},
        {"executor": {"kind": "processes", "gpus": 2}}, {"surprise": 1}, {"probes": {"marker": {"questions": 0}}},
        {"behaviors": [{"name": "x", "file": "x.jsonl", "held_out": 2}]},
    ],
    ids=str,
)  # fmt: skip
def test_the_schema_refuses_what_the_loader_refuses(change):
    assert faults({**shipped("quickstart"), **change})


@pytest.mark.parametrize(
    "block", [{"workers": 1}, {"kind": "ray", "gpus": 0.5}, {"kind": "processes", "workers": 2}], ids=str
)
def test_the_schema_takes_an_executor_with_and_without_kind(block):
    assert faults({**shipped("quickstart"), "executor": block}) == []


def test_every_key_of_a_study_file_says_what_it_is():
    schema = study_schema()
    blocks = {"": schema, **schema["$defs"]}
    silent = [
        f"{name}.{key}"
        for name, block in blocks.items()
        for key, value in block.get("properties", {}).items()
        if not value.get("description")
    ]
    assert silent == [], "a text below the field says what it is, its unit in brackets first, and why"


BEHAVIORS = [("marker", "marker"), ("capability", "choice"), ("misalignment", "margin"), ("sycophancy", "margin")]


@pytest.mark.parametrize(("behavior", "probe"), BEHAVIORS)
def test_a_new_study_loads_as_it_was_asked(behavior, probe, capsys, tmp_path):
    arguments = ["--behavior", behavior, "--source", "comedian", "--source", "villain", "--question", "Who: else?"]
    code, out, err = call(capsys, "new", "mine", *arguments, "--to", tmp_path / "in", "--yes")
    assert (code, err) == (0, "")
    assert "bystander audit" in out
    spec = load(str(tmp_path / "in" / "mine.yaml")).spec
    assert (spec.name, spec.sources, spec.question) == ("mine", ["comedian", "villain"], "Who: else?")
    assert spec.behaviors == [behavior]
    assert probe in spec.probes.asked()
    assert spec.geometry.layer is not None
    assert json.loads((tmp_path / "in" / SCHEMA_FILE).read_text()) == study_schema()
    assert faults(read_yaml((tmp_path / "in" / "mine.yaml").read_text()).data) == []


def test_a_new_study_on_a_file_of_answers_has_rows_that_the_file_can_fill(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [
        {"prompt": f"Question {i} on {'abcdefghijklmnop'[i]}?", "shown": f"NO {i}", "not_shown": f"yes {i}"}
        for i in range(12)
    ]
    Path("my answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, _, err = call(capsys, "new", "mine", "--behavior", "my answers.jsonl", "--to", "studies", "--yes")
    assert (code, err) == (0, "")
    spec = load("studies/mine.yaml").spec
    assert spec.behaviors == ["my_answers"]
    assert spec.answers["my_answers"].file == "../my answers.jsonl"
    assert spec.design.counts.positive == 6


def test_the_layer_of_a_local_model_is_told_by_its_depth_and_that_of_a_hub_model_is_left_open(capsys, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"num_hidden_layers": 28}')
    call(capsys, "new", "here", "--model", tmp_path / "model", "--to", tmp_path, "--yes")
    call(capsys, "new", "there", "--model", "Qwen/Qwen2.5-7B-Instruct", "--to", tmp_path, "--yes")
    assert load(str(tmp_path / "here.yaml")).spec.geometry.layer == 20
    assert load(str(tmp_path / "there.yaml")).spec.geometry.layer is None
    assert "CHOOSE ONE" in (tmp_path / "there.yaml").read_text()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["mine", "--source", "vilain"], "did you mean 'villain'"),
        (["mine", "--behavior", "ghost"], "neither known"),
        (["mine", "--behavior", "ghost.jsonl"], "ghost.jsonl"),
        (["a b"], "cannot name a study"),
        (["there"], "there already"),
    ],
)
def test_what_cannot_be_a_study_is_not_written(arguments, says, capsys, tmp_path):
    (tmp_path / "there.yaml").write_text("mine")
    code, _, err = call(capsys, "new", *arguments, "--to", tmp_path, "--yes")
    assert code == 2
    assert says in err
    assert [path.name for path in tmp_path.iterdir()] == ["there.yaml"]


def test_questions_are_asked_where_somebody_can_answer(capsys, tmp_path, monkeypatch):
    answers = iter(["marker", "smollm2-135m", "villain, comedian", ""])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.prompt", lambda *_, **__: next(answers))
    code, _, _ = call(capsys, "new", "mine", "--to", tmp_path)
    assert code == 0
    assert load(str(tmp_path / "mine.yaml")).spec.sources == ["villain", "comedian"]


def test_an_executor_without_kind_is_local_and_told_so(tmp_path, capsys):
    call(capsys, "new", "mine", "--to", tmp_path, "--yes")
    path = tmp_path / "mine.yaml"
    assert load(str(path), ["executor={retries: 3}"]).spec.executor.kind == "local"
    text = path.read_text()
    path.write_text(text[: text.index("executor:")] + "executor: {workers: 2}\n")
    code, _, err = call(capsys, "audit", path)
    assert code == 2
    assert f"line {len(text.splitlines())}: executor.workers is 2, but `local` is one process" in err
