"""What cannot run is refused by `audit` and by `preflight` alike, before anything is trained; what neither can look at
is said to be unchecked. All through the commands, on a tiny model that lacks something."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bystander.behaviors.marker import MarkerBehavior
from bystander.cli import main as cli
from bystander.core.errors import StoreError
from bystander.engine.run import run_study
from bystander.study.config.study import load
from tests.support.small_tokenizer import CHATML
from tests.support.study_tiny import PERSONAS, make_model, write_study

Commands = Callable[..., tuple[int, str, int, dict[str, tuple[bool | None, str]]]]
CLOCK = "<|im_start|>note\n{{ strftime_now('%d %b %Y %H:%M:%S') }}<|im_end|>\n"
NO_PERSONAS = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('system turns are not served') }}{% endif %}"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, embedded: Path) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def model(base: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(base, tmp_path / "model"))


@pytest.fixture
def both(model: Path, tmp_path: Path, monkeypatch, capsys) -> Commands:
    """Both commands on the study with settings changed: (exit code and all text of the audit, exit code and checks of
    preflight: name -> (ok, message))."""

    def call(*sets: str, file: Path | None = None) -> tuple[int, str, int, dict[str, tuple[bool | None, str]]]:
        study = str(file or write_study(tmp_path / "study", model))
        words = [word for one in sets for word in ("--set", one)]
        audit = _command(["audit", study, *words])
        preflight = _command(["preflight", study, *words, "--out", str(tmp_path / "run"), "--json"])
        checks = json.loads(preflight[1])["checks"] if preflight[1].startswith("{") else []
        return *audit, preflight[0], {one["name"]: (one["ok"], one["message"]) for one in checks}

    def _command(words: list[str]) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["bystander", *words])
        try:
            cli.main()
            code = 0
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        out = capsys.readouterr()
        return code, out.out + out.err

    return call


def refused(found: tuple[int, str, int, dict[str, tuple[bool | None, str]]], check: str, says: str) -> None:
    """Both refuse, with the same words under the same name."""
    code, text, checked, checks = found
    assert (code, checked) == (2, 2)
    assert says in " ".join(text.split())
    assert checks[check][0] is False
    assert says in checks[check][1]


def test_a_study_that_can_run_passes_both(both: Commands):
    code, text, checked, checks = both()
    assert (code, checked) == (0, 0), text
    assert {name: ok for name, (ok, _) in checks.items() if ok is not True} == {}
    assert checks["layers"][1].startswith("2 blocks")


@pytest.mark.parametrize("setting", ["geometry.layer=3", "geometry.layers=[1, 3]"])
def test_a_layer_that_the_model_does_not_have(both: Commands, setting: str):
    key = setting.partition("=")[0]
    refused(both(setting), "layers", f"{key} 3: ")
    assert both("geometry.layer=2")[0] == 0


@pytest.mark.parametrize(
    ("device", "says"),
    [
        ("cuda:7", "device 'cuda:7' is not there"),
        ("gpu", "device 'gpu' is unknown"),
        ("meta", "device 'meta' is not served"),
    ],
)
def test_a_device_that_does_not_exist(both: Commands, device: str, says: str):
    found = both(f"model.device={device}")
    refused(found, "device", says)
    assert found[3]["memory"] == (None, "not checked: the device is not there")


def test_vllm_that_is_not_installed(both: Commands, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    refused(both("model.engine=vllm"), "device", "model.engine is vllm, but vLLM is not installed")


def test_other_machines_are_not_called_checked(both: Commands):
    code, text, checked, checks = both("executor={kind: ray, address: auto}", "model.device=cuda:7")
    assert (code, checked) == (0, 0)
    assert "not checked: cells run on other machines" in text
    assert checks["device"][0] is None
    assert checks["memory"][0] is None


def test_a_model_whose_size_is_not_known_is_not_called_checked(both: Commands, model: Path, monkeypatch):
    monkeypatch.setattr("bystander.engine.preflight.known_shape", lambda _: False)
    assert both()[3]["memory"][1].startswith("not checked: the model's size is not known here")


def with_template(model: Path, template: str) -> None:
    (model / "chat_template.jinja").write_text(template)


def test_a_template_that_refuses_personas(both: Commands, model: Path):
    with_template(model, NO_PERSONAS + CHATML)
    found = both()
    refused(found, "tokenizer", "it refuses a system turn (system turns are not served)")
    assert "rows not checked: the model's tokenizer cannot render them" in " ".join(found[1].split())
    assert found[3]["window"][1] == "not checked: the tokenizer cannot render the study's prompts"


def test_a_template_with_chance_in_it(both: Commands, model: Path):
    with_template(model, "<|im_start|>note\n{{ range(10**4) | random }}<|im_end|>\n" + CHATML)
    refused(both(), "tokenizer", "it has chance in it")


def test_no_template_at_all(both: Commands, model: Path):
    (model / "chat_template.jinja").unlink()
    refused(both(), "tokenizer", "the tokenizer has no chat template")


def test_a_bare_context_that_cannot_be_rendered_is_refused_where_it_is_named_and_only_there(
    both: Commands, model: Path
):
    """A template that leaves out a system turn without text cannot render `empty`."""
    with_template(model, CHATML.replace("{% for m in messages %}", "{% for m in messages if m['content'] %}"))
    refused(
        both("contexts=[absent, empty]"), "tokenizer", "a system turn that has no text. Leave it out of the contexts."
    )
    for sets in ([], ["contexts=[bare, json]"], ["contexts=[absent, default, assistant]"]):
        code, text, checked, _ = both(*sets)
        assert (code, checked) == (0, 0), text
        assert ("`empty` is not measured: this context cannot be rendered" in " ".join(text.split())) == (
            "bare" in str(sets or "bare")
        )


def test_a_clock_stands_still_from_the_first_token_to_the_last(model: Path, tmp_path: Path):
    """A template that writes the time of day: all of the study runs on one prompt, whatever the time is."""
    with_template(model, CLOCK + CHATML)
    study = load(str(write_study(tmp_path / "study", model)), ["sweep=null", "gate=null", "sources=[villain]"])
    ran = run_study(study, tmp_path / "run")
    assert (ran.failed, ran.left) == ({}, 0)
    shown = json.loads((tmp_path / "run" / "audit.json").read_text())["renderings"]
    assert all("26 Jul 2024 00:00:00" in one["text"] for one in shown)


def test_a_slow_tokenizer(both: Commands, model: Path, monkeypatch):
    from transformers import AutoTokenizer

    real = AutoTokenizer.from_pretrained

    def slow(*args, **kwargs):
        found = real(*args, **kwargs)
        kind = type("Slow", (type(found),), {"is_fast": property(lambda _self: False)})
        found.__class__ = kind
        return found

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", slow)
    refused(both(), "tokenizer", "the tokenizer is a slow one")


def test_tokenizer_files_that_nobody_can_read(both: Commands, model: Path):
    (model / "tokenizer.json").write_text("{broken")
    (model / "tokenizer_config.json").write_text("{")
    found = both()
    refused(found, "model", "cannot be loaded")
    assert found[3]["layers"] == (None, "not checked: the model's tokenizer and settings cannot be had")


def test_a_persona_longer_than_the_window(both: Commands, model: Path, tmp_path: Path):
    file = write_study(tmp_path / "study", model)
    personas = file.with_name("personas.yaml")
    personas.write_text(personas.read_text().replace(PERSONAS["spy"], "You are a spy." + " Say little." * 300))
    refused(both(file=file), "tokenizer", "context spy: with a user turn of one word it takes ")


def test_an_item_that_fits_under_some_personas_only(both: Commands, model: Path, tmp_path: Path):
    """512 tokens of window: the persona alone leaves room for a word and not for a question."""
    file = write_study(tmp_path / "study", model)
    personas = file.with_name("personas.yaml")
    personas.write_text(personas.read_text().replace(PERSONAS["spy"], "You are a spy." + " Say little." * 160))
    refused(both(file=file), "window", "under spy takes 5")


def test_answers_that_cannot_fit_behind_any_question(both: Commands):
    refused(
        both("probes.marker.max_tokens=500"), "window", "probes.marker.max_tokens is 500: with the longest persona ("
    )


def test_a_behavior_that_no_probe_of_the_study_sees(both: Commands):
    found = both("behaviors=[marker, misalignment]", "sweep=null", "gate=null")
    refused(found, "probes", "no probe of this study sees the behavior 'misalignment': ask for judged or margin")
    assert "How is misalignment measured?" in found[3]["open settings"][1]


def test_a_package_s_behavior_that_no_probe_at_all_sees(both: Commands, monkeypatch):
    monkeypatch.setattr(MarkerBehavior, "read_by", ())
    found = both()
    refused(found, "probes", "no probe at all sees the behavior 'marker': its class names none in `read_by`")
    assert "`read_by` of its class" in found[3]["open settings"][1]


def test_a_layer_that_nobody_chose_is_not_ok(both: Commands):
    checks = both("geometry.layer=null")[3]
    assert checks["open settings"][0] is False
    assert "At which layer" in checks["open settings"][1]


def test_a_training_of_one_step_under_a_warm_up_trains_nothing(both: Commands):
    one = ["recipe.batch_size=16", "recipe.epochs=1", "sweep=null", "gate=null"]
    refused(both(*one), "steps", "has 1 optimizer step, at a learning rate of 0")
    assert both(*one, "recipe.warmup=0.0")[0] == 0


JUDGED = "- {id: q, type: free_form_judge_0_100, paraphrases: [What now?], judge_prompts: %s}\n"


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("probes.judged={questions: 500}", "probes.judged.questions asks for 500 questions, but there are "),
        ("probes.margin={pairs: 500}", "probes.margin.pairs asks for 500 pairs that no training reads, but there are "),
        ("probes.marker.questions=500", "probes.marker asks for 500 questions, but "),
        ("probes.choice={bank: 500, hellaswag: 0, arc: 0, trained: 0}", "asks for 500 questions, but the bank has 256"),
        ("geometry.questions=500", "geometry.questions is 500, but there are 40 open questions"),
        ("probes.choice={file: nowhere.jsonl, hellaswag: 0, arc: 0, trained: 0}", "nowhere.jsonl"),
    ],
)
def test_questions_that_are_not_there(both: Commands, setting: str, says: str):
    code, text, checked, checks = both(setting)
    assert (code, checked) == (2, 2)
    assert says in " ".join(text.split())
    assert all(ok is False and says in message for ok, message in checks.values()), checks


@pytest.mark.parametrize("prompts", [None, "{aligned: '{question} {answer}'}", "{aligned: x, coherent: '{answer}'}"])
def test_question_files_and_rubrics_that_are_not_there(both: Commands, tmp_path: Path, prompts: str | None):
    file = tmp_path / "study" / "asked.yaml"
    if prompts is not None:
        file.parent.mkdir()
        file.write_text(JUDGED % prompts)
    code, text, checked, checks = both("probes.judged={}", f"misalignment.questions={file}")
    assert (code, checked) == (2, 2)
    says = "cannot read" if prompts is None else "is not a question file"
    assert says in text
    assert says in checks["plan"][1]


def test_an_audit_that_found_a_fault_of_the_machine_is_made_again(model: Path, tmp_path: Path, monkeypatch):
    from bystander.study.plan.audit import audit_study
    from bystander.study.plan.cells import plan_cells
    from bystander.study.store.run_dir import RunDir

    plan, run = plan_cells(load(str(write_study(tmp_path / "study", model)))), RunDir(tmp_path / "run")
    run.path.mkdir()
    shutil.move(model / "tokenizer.json", tmp_path / "tokenizer.json")
    assert any(one.level == "error" for one in audit_study(plan, run))
    shutil.move(tmp_path / "tokenizer.json", model / "tokenizer.json")
    assert [one.message for one in audit_study(plan, run) if one.level == "error"] == []


def test_run_refuses_what_preflight_refuses(model: Path, tmp_path: Path):
    with_template(model, NO_PERSONAS + CHATML)
    with pytest.raises(StoreError, match="system turns are not served"):
        run_study(load(str(write_study(tmp_path / "study", model))), tmp_path / "run")
    assert not (tmp_path / "run" / "cells").exists()
