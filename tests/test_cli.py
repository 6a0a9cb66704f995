"""The command line as a user meets it: quick to answer, one clear message for a fault, exit code 2, nothing written."""

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from bystander.cli import main as cli

ROOT = Path(__file__).resolve().parents[1]


def call(capsys, *arguments):
    """Run the command in this process: (exit code, standard output, standard error)."""
    sys.argv = ["bystander", *map(str, arguments)]
    try:
        cli.main()
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err


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
    "a probe that does not exist": (("probe", "--model", "smollm2-135m", "--probe", "magic"), "magic"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_one_clear_message_exit_code_2_and_nothing_written(name, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "binary.yaml").write_bytes(b"\x00\xff\x00")
    (tmp_path / "empty.yaml").write_text("")
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
    """Every `bystander X` that the README shows is a command."""
    text = (ROOT / "README.md").read_text()
    shown = {line.split()[1] for line in text.splitlines() if line.startswith("bystander ")}
    _, out, _ = call(capsys, "--help")
    assert shown
    assert all(command in out for command in shown)
