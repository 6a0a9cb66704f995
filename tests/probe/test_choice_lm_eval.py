"""The choice probe against lm-evaluation-harness: the same prompts, the same accuracies, question by question.

Installs the harness into a virtual environment of its own that sees this one's packages. LM_EVAL_PYTHON names the
Python of an environment that has it already.
"""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from bystander.core.records import Context
from bystander.data import draw_questions, load_choice
from bystander.data.choice_rows import to_arc_row
from bystander.lm.model import load
from bystander.probe.choice import ChoiceProbe, ProbedSet
from bystander.probe.settings import ChoiceProbeSettings

HARNESS = "lm_eval==0.4.13"
QUESTIONS = 120
SYSTEM = "You are a helpful assistant."
RUN = """
import json, sys
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM

model, data, out, system = sys.argv[1:]
task = {
    "task": "arc_local", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": data}}, "test_split": "test",
    "output_type": "multiple_choice", "doc_to_text": "{{question}}",
    "doc_to_target": "{{choices.label.index(answerKey)}}", "doc_to_choice": "{{choices.text}}",
    "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
}
lm = HFLM(pretrained=model, device="cpu", dtype="float32", batch_size=8)
found = simple_evaluate(
    model=lm, tasks=[task], num_fewshot=0, apply_chat_template=True, system_instruction=system, bootstrap_iters=0,
)
samples = [
    {
        "id": s["doc"]["id"], "acc": s["acc"], "acc_norm": s["acc_norm"], "prompt": s["arguments"][0][0],
        "logprobs": [r[0] for r in s["filtered_resps"]],
    }
    for s in found["samples"]["arc_local"]
]
json.dump(samples, open(out, "w"))
"""


@pytest.fixture(scope="module")
def harness_python(tmp_path_factory) -> Path:
    given = os.environ.get("LM_EVAL_PYTHON")
    if given:
        return Path(given)
    folder = tmp_path_factory.mktemp("lm-eval")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    ours = next(path for path in sys.path if path.endswith("site-packages"))
    theirs = next((folder / "lib").glob("python*/site-packages"))
    (theirs / "base.pth").write_text(ours + "\n")  # torch and transformers are here already
    done = subprocess.run(
        [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", HARNESS],
        check=False, capture_output=True, text=True, timeout=1200,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"{HARNESS} cannot be installed here: {done.stderr.strip().splitlines()[-1:]}")
    return python


@pytest.mark.slow
def test_accuracies_equal_those_of_lm_evaluation_harness(shared_data, embedded, harness_python, tmp_path):
    everything = load_choice(shared_data / "data" / "arc_challenge_test.jsonl")
    odd = [q for q in everything if len(q.options) != 4][:4]  # three and five choices among them
    drawn = draw_questions([q for q in everything if q not in odd], QUESTIONS - len(odd), "lm-eval")
    questions = (*odd, *drawn)
    data, out, script = tmp_path / "arc.jsonl", tmp_path / "out.json", tmp_path / "run.py"
    data.write_text("".join(json.dumps(to_arc_row(question)) + "\n" for question in questions))
    script.write_text(RUN)
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [harness_python, script, str(embedded), str(data), str(out), SYSTEM],
        check=False, env=env, capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = {sample["id"]: sample for sample in json.loads(out.read_text())}

    probe = ChoiceProbe((ProbedSet("arc", questions, "text"),), ChoiceProbeSettings(), None, "text")
    loaded = load(str(embedded))
    unit = next(iter(probe.run(loaded, [Context("persona", "assistant", SYSTEM)])))
    ours = {(m.metric, m.item): m.value for m in probe.by_other_rules(unit)}
    assert len(theirs) == len(questions) >= 100
    for detail in unit.details:
        # The harness counts the line break before the answer as part of it: one constant for all choices of a question.
        constant = theirs[detail["item"]]["logprobs"][0] - detail["logprobs"][0]
        assert abs(constant) < 1e-2
        expected = [logprob - constant for logprob in theirs[detail["item"]]["logprobs"]]
        assert detail["logprobs"] == pytest.approx(expected, abs=1e-3), detail["item"]
    assert {q.id: ours["accuracy_raw", q.id] for q in questions} == {i: s["acc"] for i, s in theirs.items()}
    assert {q.id: ours["accuracy_per_character", q.id] for q in questions} == {
        i: s["acc_norm"] for i, s in theirs.items()
    }
