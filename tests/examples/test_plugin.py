"""A package outside bystander adds a behavior, a probe, a predictor and an executor: from a YAML file to a report."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.study_tiny import PERSONAS, make_model

PLUGIN = Path(__file__).resolve().parents[2] / "examples" / "plugin"

SCRIPT = """
import json, sys
from pathlib import Path
from bystander.core.errors import StudyError
from bystander.api import Study
from bystander.study.config.study import load
from bystander.study.forecast.plan_report import plan_report
from bystander.results.results import Results
from bystander.engine.run import run_study

file, out = sys.argv[1], Path(sys.argv[2])
study = load(file, sys.argv[3:])
plan = plan_report(study)
run_study(study, out)
results = Results.open(out)
results.report()
broken = Path(file).with_name("broken.yaml")
broken.write_text(Path(file).read_text().replace("{questions: 4}", "{questoins: 4}"))
try:
    load(str(broken))
    fault = ""
except StudyError as error:
    fault = str(error)
print(json.dumps({
    "fault": fault,
    "work": {c.kind + c.name[:5]: c.work.scored for c in plan.forecast.cells},
    "power": [row.test for row in plan.power],
    "metrics": sorted(set(results.measurements["metric"])),
    "methods": sorted(set(results.similarities["method"])),
    "verdicts": [v.hypothesis for v in results.analysis.verdicts],
    "charts": sorted(results.charts()),
    "executor": study.spec.executor.kind,
}))
"""


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, str]:
    """What the study of the example said, and its report; on the tiny model, with eight personas."""
    root = tmp_path_factory.mktemp("plugin")
    site = root / "site"
    info = site / "bystander_shouting-0.1.0.dist-info"
    info.mkdir(parents=True)
    shutil.copy(PLUGIN / "bystander_shouting.py", site)
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]  # as an installer writes it
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"].items()
    points = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in names.items()) for group, names in groups]
    (info / "entry_points.txt").write_text("\n".join(points))
    shutil.copy(PLUGIN / "study.yaml", root)
    entries = [f"  - {{name: {n}, category: original, prompt: '{prompt}'}}" for n, prompt in PERSONAS.items()]
    (root / "personas.yaml").write_text("personas:\n" + "\n".join(entries) + "\n")
    model = make_model(root / "model")
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(site), *sys.path])}
    settings = [f"model.name={model}", "model.device=cpu", f"personas={root / 'personas.yaml'}", "geometry.layer=1"]
    command = [sys.executable, "-c", SCRIPT, str(root / "study.yaml"), str(root / "run"), *settings]
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]), (root / "run" / "report.html").read_text()


def test_its_metric_is_in_the_tables_the_verdict_and_the_figures(outcome):
    found, page = outcome
    assert found["metrics"] == ["loudness"]
    assert found["verdicts"] == ["loud"]
    assert {"levels-shouting", "scatter"} <= set(found["charts"])
    assert "loudness" in page
    assert found["executor"] == "patient"


def test_its_predictor_stands_beside_the_built_in_ones(outcome):
    found, page = outcome
    assert "first_letter" in found["methods"]
    assert "cosine" in found["methods"]
    assert "leading letters" in page


def test_its_work_is_forecast_and_its_tests_have_power(outcome):
    found, _ = outcome
    assert all(found["work"][kind] > 0 for kind in ("evaluatebase-", "evaluateafter"))
    assert any("capitals/bank/loudness" in test for test in found["power"])


def test_a_typo_in_its_settings_gets_a_line_and_a_suggestion(outcome):
    fault = outcome[0]["fault"]
    line = (PLUGIN / "study.yaml").read_text().splitlines().index("  capitals: {questions: 4}") + 1
    assert re.search(rf"line {line}: unknown key 'probes\.capitals\.questoins'; did you mean 'questions'\?", fault), (
        fault
    )


def test_the_example_is_short():
    assert len((PLUGIN / "bystander_shouting.py").read_text().splitlines()) < 150
