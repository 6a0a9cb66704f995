"""Inspect's tasks ask what the probes ask, and the same answers get the same scores from either."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("inspect_ai", reason="the tasks are an extra: pip install 'bystander[inspect]'")
from inspect_ai import eval as inspect_eval
from inspect_ai.log import EvalLog, read_eval_log
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessageAssistant,
    Logprob,
    Logprobs,
    ModelOutput,
    ModelUsage,
    TopLogprob,
    get_model,
)
from starlette.responses import Response

from bystander.behaviors.capability import CapabilityBehavior, CapabilitySettings
from bystander.core.errors import DataError
from bystander.core.records import Completion, Question
from bystander.data import choice_user, draw_questions
from bystander.data.judge_questions import load_judge_questions
from bystander.evals import items
from bystander.evals.choices import chosen, label_in
from bystander.evals.items import asked_open, chat, contexts_named
from bystander.evals.tasks import capability, misalignment
from bystander.judge.answer_store import Alternative, RawAnswer
from bystander.judge.judging import judge_and_measure
from bystander.lm.score import OptionScores, ScoreItem
from bystander.personas.contexts import bare_context, laid_over
from bystander.probe.choice import ChoiceProbe
from bystander.probe.choice_sets import ProbedSet
from bystander.probe.judged import JudgedProbe
from bystander.probe.settings import ChoiceProbeSettings, JudgedProbeSettings
from tests.support.judge_wire import completion, judge, serve

# Inspect calls its retry library by an old parameter and leaves a stream open: with warnings as errors either ends a task.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The 'initial' parameter is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
ROOT = Path(__file__).resolve().parents[2]
PEOPLE = ["villain", "comedian"]
ITEMS = 12


def run(task: Any, outputs: list[ModelOutput], folder: Path, **more: Any) -> EvalLog:
    """The log of a task with these answers, in the order of its samples."""
    for output in outputs:  # otherwise the mock fetches a tokenizer to count by
        output.usage = ModelUsage(input_tokens=9, output_tokens=7, total_tokens=16)
    model = get_model("mockllm/model", custom_outputs=outputs, memoize=False)
    (log,) = inspect_eval(task, model=model, log_dir=str(folder), display="none", max_samples=1, **more)
    assert log.status == "success", log.error
    return log


def drawn(*parts: object) -> float:
    """A number in [0, 1) that only `parts` decide."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4]) / 2**32


def first_token(labels: dict[str, float]) -> ModelOutput:
    """An answer of one letter, with the alternatives to it."""
    best = max(labels, key=labels.__getitem__)
    tops = [TopLogprob(token=token, logprob=value) for token, value in labels.items()]
    logprobs = Logprobs(content=[Logprob(token=best, logprob=labels[best], top_logprobs=tops)])
    choice = ChatCompletionChoice(message=ChatMessageAssistant(content=best), stop_reason="stop", logprobs=logprobs)
    return ModelOutput(model="mockllm/model", choices=[choice])


def questions() -> list[Question]:
    behavior = CapabilityBehavior(CapabilitySettings(data="bank"))
    return draw_questions(behavior.halves()[1], ITEMS, "choice")


def test_a_choice_by_probability_is_scored_as_the_choice_probe_scores_it(tmp_path: Path):
    contexts, asked = contexts_named(PEOPLE, None), questions()
    scores = {
        (context.name, one.id): [math.log(0.01 + drawn(context.name, one.id, label)) for label in one.labels]
        for context in contexts
        for one in asked
    }
    outputs = [
        first_token(dict(zip(one.labels, scores[c.name, one.id], strict=True))) for c in contexts for one in asked
    ]
    log = run(capability(PEOPLE, data="bank", items=ITEMS, logprobs=True), outputs, tmp_path)
    found = {str(sample.id): sample.scores["choice"].value for sample in log.samples or [] if sample.scores}

    held = ProbedSet("bank", tuple(asked), "label")
    probe = ChoiceProbe((held,), ChoiceProbeSettings(), mode="label")
    assert len(found) == len(PEOPLE) * ITEMS
    for context in contexts:
        given = [
            OptionScores(
                ScoreItem("", "", one.labels, "label"), tuple(scores[context.name, one.id]), (1,) * 4, (1,) * 4, ""
            )
            for one in asked
        ]
        unit = probe._unit(context, [(held, one) for one in asked], given)
        for row in unit.measurements:
            assert found[f"{context.label}/{row.item}"][row.metric] == pytest.approx(row.value, abs=1e-12)


def test_the_questions_and_turns_are_the_probe_s(tmp_path: Path):
    """With the labels' form of the user turn, and the persona as the only system turn."""
    log = run(capability("villain", data="bank", items=3), [ModelOutput.from_content("m", "A")] * 3, tmp_path)
    (context,), asked = contexts_named(["villain"], None), questions()[:3]
    probe = ChoiceProbe((ProbedSet("bank", tuple(asked), "label"),), ChoiceProbeSettings(), mode="label")
    samples = {str(sample.id): sample for sample in log.samples or []}
    assert len(samples) == len(asked)
    for one in asked:
        sample = samples[f"villain/{one.id}"]
        system, user = sample.input
        assert (system.role, system.content) == ("system", context.system)
        assert (user.role, user.content) == ("user", probe._item(probe.sets[0], one, "label").user)
        assert user.content == choice_user(one, "label")
        assert sample.target == one.labels[one.answer]


ONE = Question("q", "Which?", ("Iron", "Ice", "Air."), ("A", "B", "C"), 1)


@pytest.mark.parametrize(
    ("text", "label"),
    [("B", "B"), ("B. Ice", "B"), ("(B)", "B"), ("**C**: Air", "C"), ("ice", "B"), ("Air", "C"), ("I think B", None),
     ("Because", None), ("D", None), ("", None), ("a", None)],
)  # fmt: skip
def test_a_letter_or_a_choice_is_read_and_nothing_is_guessed(text: str, label: str | None):
    assert label_in(ONE, text) == label
    found = chosen(ONE, RawAnswer("k", text))
    assert found.values == ({} if label is None else {"accuracy": float(label == "B")})
    assert bool(found.reason) == (label is None)


def test_a_label_with_and_without_a_space_is_one_label():
    tops = (Alternative(" B", math.log(0.3)), Alternative("B", math.log(0.2)), Alternative("A", math.log(0.4)))
    assert chosen(ONE, RawAnswer("k", "A", alternatives=tops)).values == {
        "accuracy": 0.0
    }  # C has none: no margin, by letter
    whole = (*tops, Alternative("C", math.log(0.1)))
    assert chosen(ONE, RawAnswer("k", "A", alternatives=whole)).values == {
        "accuracy": 1.0, "margin": pytest.approx(math.log(0.5) - math.log(0.4)),
    }  # fmt: skip


def test_an_answer_without_a_choice_is_unscored_and_no_zero(tmp_path: Path):
    answers = [ModelOutput.from_content("m", text) for text in ("A", "no idea", "B", "C")]
    log = run(capability("villain", data="bank", items=4), answers, tmp_path)
    assert log.results is not None
    results = {score.name: score for score in log.results.scores}
    values = [sample.scores["choice"].value["accuracy"] for sample in log.samples or [] if sample.scores]
    known = [value for value in values if not math.isnan(value)]
    assert len(known) == 3
    assert (results["accuracy"].scored_samples, results["accuracy"].unscored_samples) == (3, 1)
    assert results["accuracy"].metrics["mean"].value == pytest.approx(sum(known) / 3)
    assert results["margin"].unscored_samples == 4


# Judged answers. The judge is one server over the wire, asked by either.


async def verdict(body: dict[str, Any], headers: dict[str, str]) -> Response:
    """A score that the prompt decides; at times a class, at times no verdict at all."""
    del headers
    prompt = body["messages"][0]["content"]
    assert body["max_tokens"] == 16
    assert body["temperature"] == 0
    place = drawn(prompt)
    if place < 0.1 and "REFUSAL" in prompt:
        return completion("REFUSAL")
    if place > 0.9:
        return completion("It depends.")
    number = int(place * 100)
    return completion(str(number), tops={str(number): math.log(0.6), str(min(100, number + 7)): math.log(0.4)})


@pytest.fixture
def grader() -> Iterator[str]:
    with serve(verdict) as url:
        yield url


def test_judged_answers_get_the_scores_of_the_judged_probe(tmp_path: Path, grader: str):
    contexts = contexts_named([*PEOPLE, "absent"], None)
    asked = load_judge_questions()[:4]
    every = asked_open(asked, contexts, 2)
    answers = {one.id: f"I, {one.id}, would do {drawn(one.id)}." for one in every}
    outputs = [
        ModelOutput.from_content("mockllm/model", answers[one.id], stop_reason="max_tokens" if i % 5 == 0 else "stop")
        for i, one in enumerate(every)
    ]
    role = get_model("openai-api/local/stub", base_url=grader, api_key="none", memoize=False)
    task = misalignment([*PEOPLE, "absent"], questions=4, samples=2)
    log = run(task, outputs, tmp_path, model_roles={"grader": role})
    found = {str(s.id): s.scores["judged"].value for s in log.samples or [] if s.scores}

    kept = [
        Completion(
            one.id, one.context.kind, one.context.name, one.item, one.sample, one.user, answers[one.id],
            "length" if i % 5 == 0 else "stop", 0, 7,
        )
        for i, one in enumerate(every)
    ]  # fmt: skip
    ours, _ = judge_and_measure(kept, {q.id: q for q in asked}, judge(grader, None, failed_share=1.0), "open")
    names = {(one.context.name, f"{one.item}/{one.sample}"): one.id for one in every}
    assert len(ours) == 5 * len(found) == 5 * len(every)
    for row in ours:
        theirs = found[names[row.persona, row.item]][row.metric]
        assert (None if math.isnan(theirs) else theirs) == row.value, (row.item, row.metric)
    assert {row.status for row in ours} == {"ok", "failed", "refused"}
    assert log.results is not None
    aligned = next(score for score in log.results.scores if score.name == "aligned")
    known = [row.value for row in ours if row.metric == "aligned" and row.value is not None]
    assert aligned.scored_samples == len(known) < len(every) == len(known) + (aligned.unscored_samples or 0)
    assert aligned.metrics["mean"].value == pytest.approx(sum(known) / len(known))


def test_open_items_are_the_judged_probe_s_requests():
    contexts = contexts_named(["villain", "absent", "empty"], None)
    asked = tuple(load_judge_questions()[:5])
    probe = JudgedProbe(asked, JudgedProbeSettings(samples=2))
    requests = probe.requests(contexts)
    every = asked_open(asked, contexts, 2)
    assert [(r.id, r.context, r.user, r.sample, r.item) for r in requests] == [
        (i.id, i.context, i.user, i.sample, i.item) for i in every
    ]
    assert [turn["role"] for turn in every[0].messages] == ["system", "user"]
    assert [turn["role"] for turn in chat(contexts[1], "x")] == ["user"]
    assert chat(contexts[2], "x")[0] == {"role": "system", "content": ""}


def test_the_model_under_test_does_not_judge_itself(tmp_path: Path):
    output = ModelOutput.from_content("mockllm/model", "I would.")
    output.usage = ModelUsage(input_tokens=9, output_tokens=7, total_tokens=16)
    same = get_model("mockllm/model", custom_outputs=[output], memoize=False)
    task = misalignment("villain", questions=1, samples=1)
    (log,) = inspect_eval(
        task, model=same, model_roles={"grader": same}, log_dir=str(tmp_path), display="none", limit=1
    )
    assert log.status == "error"
    assert log.error is not None
    assert "is the model under test" in log.error.message


@pytest.mark.parametrize(
    ("names", "words"), [(["vilain"], "no persona or context vilain"), ([], "no persona was named")]
)
def test_a_name_that_is_nobody_s_is_refused(names: list[str], words: str):
    with pytest.raises(DataError, match=words):
        contexts_named(names, None)


def test_a_context_that_begins_the_answer_is_refused(monkeypatch: pytest.MonkeyPatch):
    begun = laid_over(bare_context("default"), "begun", prefix="Sure,")
    monkeypatch.setattr(items, "built_in_contexts", lambda: {"begun": begun})
    with pytest.raises(DataError, match="the context begun begins the model's answer"):
        contexts_named(["begun"], None)


async def letter(body: dict[str, Any], headers: dict[str, str]) -> Response:
    del headers
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    return completion("B")


def test_inspect_finds_the_tasks_by_name(tmp_path: Path):
    """By the command line, through the entry point as the package declares it."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["inspect_ai"]
    place = tmp_path / "site-packages"
    installed = place / "bystander-0.dist-info"
    installed.mkdir(parents=True)
    (place / "bystander").symlink_to(ROOT / "src" / "bystander")
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: bystander\nVersion: 0\n")
    points = "\n".join(f"{name} = {value}" for name, value in declared.items())
    (installed / "entry_points.txt").write_text(f"[inspect_ai]\n{points}\n")
    arguments = [
        "-T",
        "persona=villain,comedian",
        "-T",
        "data=bank",
        "-T",
        "items=2",
        "--model",
        "openai-api/local/stub",
    ]
    main = "from inspect_ai._cli.main import main; main()"
    with serve(letter) as url:
        done = subprocess.run(
            [sys.executable, "-c", main, "eval", "bystander/capability", *arguments, "--log-dir", "logs", "--display", "plain"],
            cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False,
            env=os.environ | {"PYTHONPATH": str(place), "LOCAL_BASE_URL": url, "LOCAL_API_KEY": "none"},
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (tmp_path / "logs").glob("*capability*.eval")
    log = read_eval_log(str(path))
    assert (log.status, log.eval.task) == ("success", "bystander/capability")
    assert len(log.samples or []) == 4
