"""Inspect's scorers: what the probes make of an answer, as scores. An item without a value is unscored and says why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from inspect_ai.model import GenerateConfig, Model, get_model
from inspect_ai.scorer import Metric, Score, Scorer, Target, mean, scorer, stderr
from inspect_ai.solver import TaskState

from bystander.core.errors import JudgeError
from bystander.core.records import Completion, Measurement, Question
from bystander.data.judge_questions import JudgedQuestion
from bystander.evals.choices import chosen
from bystander.judge.judging import TEMPLATES, Judgement, judgement_of, measurements
from bystander.judge.keys import refuse_model_under_test
from bystander.judge.provider import read_output
from bystander.judge.requests import fill_prompt
from bystander.judge.settings import JudgeSettings

JUDGED = ("aligned", "coherent", "misaligned", "code", "refusal")
CHOSEN = ("accuracy", "margin")
ROLE = "grader"
MISSING = math.nan  # a value that is not there: Inspect counts it as unscored, where None would become 0


def _metrics(names: Sequence[str]) -> dict[str, list[Metric]]:
    return {name: [mean(), stderr()] for name in names}


def judged_scorer(questions: Sequence[JudgedQuestion], dataset: str) -> Scorer:
    """Scores each answer with the judge's two prompts of its question, as the judged probe does."""
    by_id = {question.id: question for question in questions}

    @scorer(metrics=_metrics(JUDGED), name="judged")
    def judged() -> Scorer:
        async def score(state: TaskState, target: Target) -> Score:
            del target
            answer = completion_of(state)
            judge = judge_of(str(state.model))
            found = await judge_answer(judge, by_id[answer.item.partition("/")[0]], answer)
            return score_of(measurements(answer, found, dataset), answer.text)

        return score

    return judged()


@scorer(metrics=_metrics(CHOSEN), name="choice")
def choice_scorer() -> Scorer:
    """Accuracy and, where the host gives the first token's alternatives, the margin of the right choice."""

    async def score(state: TaskState, target: Target) -> Score:
        del target
        fields: dict[str, Any] = state.metadata["question"]
        tuples = {name: tuple(fields[name]) for name in ("options", "labels")}  # a log keeps lists
        question = Question(**{**fields, **tuples})
        found = chosen(question, read_output(str(state.sample_id), state.output, 1))
        return Score(
            value={name: found.values.get(name, MISSING) for name in CHOSEN},
            answer=found.answer or None,
            explanation=found.reason or None,
        )

    return score


def judge_of(under_test: str) -> Model:
    """The model of the role `grader`. Raises JudgeError where none was named, or it is the model that is measured."""
    try:
        judge = get_model(role=ROLE, required=True)
    except ValueError as error:
        raise JudgeError(f"no judge was named: add `--model-role {ROLE}=PROVIDER/NAME` ({error})") from error
    refuse_model_under_test(JudgeSettings(model=str(judge)), [under_test])
    return judge


async def judge_answer(judge: Model, question: JudgedQuestion, answer: Completion) -> Mapping[str, Judgement]:
    """A judgement by each of the question's two prompts. The judge's settings are those of a study that names none."""
    usual = JudgeSettings(model=str(judge))
    own = judge.api.model_name.startswith("claude")  # gives no alternatives, and refuses to be asked for them
    config = GenerateConfig(temperature=usual.temperature, max_tokens=usual.max_tokens)
    if not own:
        config = config.merge(GenerateConfig(logprobs=True, top_logprobs=usual.top_logprobs))
    found: dict[str, Judgement] = {}
    for template in TEMPLATES:
        prompt = question.prompts[template]
        asked = question.paraphrases[int(answer.item.partition("/")[2] or 0)]
        output = await judge.generate(fill_prompt(prompt, asked, answer.text), config=config)
        raw = read_output(f"{answer.id}/{template}", output, 1)
        found[template] = judgement_of(answer.id, template, prompt, raw, usual.model)
    return found


def completion_of(state: TaskState) -> Completion:
    """The answer of a sample as the judged probe keeps one."""
    told = state.metadata
    output = state.output
    cut = output.choices[0].stop_reason == "max_tokens" if output.choices else False
    return Completion(
        id=str(state.sample_id), context=told["context"], persona=told["persona"], item=told["item"], sample=told["sample"],
        prompt=told["user"], text=output.completion, finish_reason="length" if cut else "stop",
        tokens=output.usage.output_tokens if output.usage else 0, seed=0, context_hash="",
    )  # fmt: skip


def score_of(rows: Sequence[Measurement], answer: str) -> Score:
    """The rows of one answer as one score; what has no value says why."""
    why = [f"{row.metric}: {row.reason}" for row in rows if row.value is None]
    return Score(
        value={row.metric: MISSING if row.value is None else row.value for row in rows},
        answer=answer,
        explanation="; ".join(why) or None,
    )
