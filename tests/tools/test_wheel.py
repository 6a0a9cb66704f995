"""The package outside its checkout, and without the libraries that only a model needs."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Not installed, as far as the process can tell: what a light environment lacks.
WITHOUT = """
import sys
from importlib.machinery import PathFinder
absent = {"torch", "transformers", "peft", "safetensors", "gguf", "huggingface_hub", "bandit", "inspect_ai", "openai",
          "anthropic", "tokenizers", "accelerate", "ray", "genai_prices", "dotenv"}
real = PathFinder.find_spec
def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in absent else real(name, path, target)
PathFinder.find_spec = staticmethod(find_spec)
from bystander.cli.main import main
main()
"""


def without_a_model(*arguments):
    command = [sys.executable, "-c", WITHOUT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory, embedded):
    """A finished run of the small study, left with one in the name of a second study."""
    from bystander.api import Study
    from tests.support.study_tiny import make_model, write_study

    folder = tmp_path_factory.mktemp("light")
    Study.load(write_study(folder / "study", make_model(folder / "model"))).run(folder / "run")
    return folder / "run"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",), ("personas",), ("studies",), ("schema",), ("analyze", "table.csv"), ("status", "run"), ("report", "run"),
        ("export", "run", "--to", "out"), ("board", "run", "--out", "board.html"), ("new", "mine", "--yes", "--to", "out"),
    ],
    ids=lambda arguments: arguments[0],
)  # fmt: skip
def test_tables_and_reports_need_neither_torch_nor_judge_nor_bandit(arguments, run, tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("source,persona,leakage,similarity\n" + "".join(f"v,p{i},{i * i % 7},{i}\n" for i in range(12)))
    places = {"run": run, "table.csv": table, "out": tmp_path / "out", "board.html": tmp_path / "board.html"}
    done = without_a_model(*(places.get(word, word) for word in arguments))
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    "arguments", [("audit", "quickstart"), ("probe", "--model", "x", "--probe", "marker")], ids=str
)
def test_what_needs_a_model_says_what_is_missing(arguments):
    done = without_a_model(*arguments)
    assert done.returncode == 2
    assert re.search(r"needs (torch|transformers).*pip install bystander brings everything", done.stderr), done.stderr


def test_the_light_extra_is_part_of_the_whole():
    light = set(PROJECT["optional-dependencies"]["analysis"])
    assert light < set(PROJECT["dependencies"])
    assert not {"torch", "bandit", "inspect-ai"} & {re.split(r"[><=]", one)[0] for one in light}


def test_the_versions_of_python_that_are_stated_begin_where_the_package_does():
    stated = [one.rpartition(" ")[2] for one in PROJECT["classifiers"] if re.search(r"Python :: 3\.", one)]
    assert stated == ["3.11", "3.12", "3.13", "3.14"]
    assert PROJECT["requires-python"] == f">={stated[0]}"


@pytest.mark.slow
def test_the_wheel_works_in_empty_environments_in_another_folder():
    """Slow: it installs 1.5 GB of packages; `make wheel` runs the same script by itself."""
    done = subprocess.run(["make", "-C", ROOT, "wheel"], capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "the README's commands from another folder" in done.stdout
