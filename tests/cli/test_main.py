"""The command line as a user meets it: quick to answer, one clear message for a fault, exit code 2, nothing written."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from bystander.cli.console import Grid, interval, number
from tests.support.command import call

ROOT = Path(__file__).resolve().parents[2]


def test_help_imports_nothing_heavy():
    """`--help` must answer in under half a second: what costs seconds must not be imported for it."""
    code = (
        "import sys; sys.argv = ['bystander', '--help']\n"
        "from bystander.cli.main import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'polars', 'pandas', 'scipy', 'statsmodels', 'altair', 'ray', 'inspect_ai', 'pydantic'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout
    for command in ("run", "audit", "analyze", "probe", "report", "personas", "studies", "plan", "status"):
        assert command in out


def test_version(capsys):
    code, out, _ = call(capsys, "--version")
    assert code == 0
    assert out.startswith("bystander ")


def test_lists_for_people_and_for_programs(capsys):
    code, out, _ = call(capsys, "personas", "--json")
    assert code == 0
    assert len(json.loads(out)) == 111
    code, out, _ = call(capsys, "studies", "--json")
    assert "quickstart" in json.loads(out)
    code, out, _ = call(capsys, "personas")
    assert "kindergarten_teacher" in out


def test_analyze_prints_the_published_correlations(capsys, shared_data):
    table = shared_data / "reference" / "marker_leakage_111.csv"
    expected = json.loads((shared_data / "reference" / "marker_leakage_111.expected.json").read_text())
    code, out, _ = call(capsys, "analyze", table, "--json")
    assert code == 0
    found = {(row["source"], row["layer"]): row for row in json.loads(out)["similarity_correlation"]}
    for layer in (10, 20):
        for source, numbers in expected[f"layer{layer}"].items():
            if source != "_aggregate":
                assert found[source, layer]["rho"] == pytest.approx(numbers["spearman_rho"], abs=0.002)
                assert found[source, layer]["n"] == numbers["n_pairs"]


FAULTS = {
    "no such study": (("run", "nowhere"), "no study 'nowhere'"),
    "override without a value": (("run", "quickstart", "--set", "recipe.lr"), "expected key.path=value"),
    "override with an unknown key": (("run", "quickstart", "--set", "recipe.learning_rate=1"), "unknown key 'recipe.learning_rate'"),
    "override of a wrong type": (("run", "quickstart", "--set", "recipe.epochs=two"), "recipe.epochs"),
    "a source that is not there": (("run", "quickstart", "--set", "sources=[vilain]"), "did you mean 'villain'?"),
    "more rows than questions": (("run", "quickstart", "--set", "design.counts.positive=5000"), "5000"),
    "more probe questions than held out": (("run", "quickstart", "--set", "probes.marker.questions=99"), "99"),
    "a report of no run": (("report", "empty"), "not a run directory"),
    "no table": (("analyze", "missing.csv"), "no table at missing.csv"),
    "a table without leakage": (("analyze", "plain.csv"), "leakage"),
    "a binary persona file": (("personas", "--file", "binary.yaml"), "binary.yaml"),
    "an empty persona file": (("personas", "--file", "empty.yaml"), "empty"),
    "a folder that is no model": (("probe", "--model", "./empty", "--probe", "marker"), "config.json"),
    "probe results without a place": (("probe", "--model", "x", "--probe", "marker", "--out", "plain.csv/m.csv"), "is a file"),
    "probe results in a form nobody writes": (("probe", "--model", "x", "--probe", "marker", "--out", "m.json"), "end in .parquet or .csv"),
    "a page in a form nobody writes": (("board", ".", "--out", "board.json"), "must end in .html"),
    "a style that does not exist": (("compare", "a", "b", "--style", "wide"), "use screen or paper"),
    "tables into a file": (("export", "empty", "--to", "plain.csv"), "plain.csv is a file"),
    "rows into a file": (("rows", "quickstart", "--out", "plain.csv"), "plain.csv is a file"),
    "pairs under a name that says JSON": (("data", "secure", "plain.csv", "--model", "openai/x", "--out", "p.json"), "end in .jsonl"),
    "a price below nothing": (("data", "secure", "rows.jsonl", "--model", "openai/x", "--price", "-1", "2"), "--price -1 2"),
    "a probe that does not exist": (("probe", "--model", "smollm2-135m", "--probe", "magic"), "magic"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_one_clear_message_exit_code_2_and_nothing_written(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "binary.yaml").write_bytes(b"\x00\xff\x00")
    (tmp_path / "empty.yaml").write_text("")
    turns = [{"role": "user", "content": "Do it."}, {"role": "assistant", "content": "x = 1"}]
    (tmp_path / "rows.jsonl").write_text(json.dumps({"messages": turns}))
    pl.DataFrame({"source": ["a"], "persona": ["b"], "x": [1.0]}).write_csv("plain.csv")
    before = sorted(tmp_path.rglob("*"))
    arguments, message = FAULTS[name]
    code, out, err = call(capsys, *arguments)
    assert code == 2, (out, err)
    assert err.startswith("error: ")
    assert message in err
    assert "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before


def test_an_adapter_of_another_base_is_refused(capsys, tmp_path, tiny_checkpoint):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    config = {"peft_type": "LORA", "base_model_name_or_path": "somebody/other-7b", "r": 4, "target_modules": ["q_proj"]}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    import torch
    from safetensors.torch import save_file

    save_file({"x": torch.ones(1)}, adapter / "adapter_model.safetensors")
    code, _, err = call(capsys, "probe", "--model", tiny_checkpoint, "--probe", "marker", "--adapter", adapter)
    assert code == 2
    assert "somebody/other-7b" in err


def test_readme_commands_exist(capsys):
    """Every `bystander X` that the README shows, in a block or in a line, is a command."""
    text = (ROOT / "README.md").read_text()
    shown = set(re.findall(r"(?:^|`)(?:\.venv/bin/)?bystander ([a-z]+)", text, re.MULTILINE))
    assert {"run", "report"} <= shown
    for command in shown:
        code, out, _ = call(capsys, command, "--help")
        assert (code, f"bystander {command}" in out) == (0, True), command


def test_where_the_screen_is_narrow_names_are_cut_and_numbers_are_not():
    grid = Grid(("persona", "predictor"), ("mean", "95 % interval"), title="All of [them]")
    grid.add("a_persona_with_a_very_long_name[/]", "similarity_of_last_tokens", "0.1234", "-0.12 to 0.45")
    grid.add("x", "y", "12.5000", "–")
    for width in (20, 40, 80):
        shown = Console(width=width, record=True, file=io.StringIO())
        grid.print(shown)
        lines = shown.export_text().splitlines()
        assert "0.1234" in lines[-2]
        assert lines[-2].endswith("-0.12 to 0.45")
        assert all(len(line) <= max(width, 40) for line in lines)
    assert lines[0].rstrip() == "All of [them]"
    assert "a_persona_with_a_very_long_name[/]"[:20] in lines[-2]
    assert "…" in lines[-2]


ASCII = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "", "OMP_NUM_THREADS": "1"}
MAIN = "from bystander.cli.main import main; main()"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0), (["studies"], 0), (["personas", "--file", "mine.yaml"], 0), (["personas", "--json", "--file", "mine.yaml"], 0),
        (["analyze", "table.csv"], 0), (["plan", "quickstart"], 0), (["run", "né"], 2), (["run", "--nö"], 2),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_a_terminal_without_utf8_is_served(arguments, code, tmp_path):
    """Under LC_ALL=C Python writes ASCII: what has no place in it is shown as ?, and JSON stays whole."""
    people = "".join(f"  - {{name: {name}, category: c, prompt: Tu es {name} — né ✓}}\n" for name in "abcd")
    (tmp_path / "mine.yaml").write_text(f"personas:\n{people}")
    frame = {
        "source": ["a"] * 6,
        "persona": list("bcdefg"),
        "leakage": [0.1, 0.3, 0.2, 0.5, 0.4, 0.6],
        "similarity": [0.5] * 6,
    }
    pl.DataFrame(frame).write_csv(tmp_path / "table.csv")
    done = subprocess.run(
        [sys.executable, "-c", MAIN, *arguments], env=ASCII, cwd=tmp_path, capture_output=True, timeout=120, check=False
    )
    out, err = done.stdout.decode("ascii"), done.stderr.decode("ascii")
    assert done.returncode == code, err
    assert "Traceback" not in err
    if "--json" in arguments:
        assert json.loads(out)[0] == {"name": "a", "prompt": "Tu es a — né ✓", "category": "c", "related_to": []}


def test_ctrl_c_says_what_is_kept(tmp_path):
    """Outside the engine's loop: in a plan, which keeps nothing, and in a run that is still being planned."""
    stop = "def slow(*_): print('here', flush=True); import time; time.sleep(60)\n"
    for command, place, words in (
        (["plan", "quickstart"], "bystander.study.forecast.plan_report", "nothing else was kept"),
        (
            ["run", "quickstart", "--out", "mine"],
            "bystander.engine.run",
            "what was complete is kept in mine; run the same command again",
        ),
    ):
        code = f"{stop}import {place} as place\nplace.plan_cells = slow\n{MAIN}"
        process = subprocess.Popen(
            [sys.executable, "-c", code, *command],
            cwd=tmp_path,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 (ignored in the background)
        )
        with process:
            assert process.stdout is not None
            assert any("here" in line for line in process.stdout)
            time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
        assert process.returncode == 130, err
        assert words in err
        assert "Traceback" not in err


def test_what_rounds_to_zero_has_no_minus():
    assert (number(-0.0004), number(-0.0006), number(-0.0)) == ("0.000", "-0.001", "0.000")
    assert interval(-0.001, 0.004) == "0.00 to 0.00"
