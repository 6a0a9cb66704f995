"""What predictors see of a model, and what is computed for them alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bystander.core.progress import Silent
from bystander.core.records import Context
from bystander.geometry.measure import NO_LAYER, Predictors
from bystander.geometry.predictors import AnswerCosine, CenteredCosine, LexicalOverlap
from bystander.geometry.similarity import centered_cosine
from bystander.lm.hidden import AnswerStates, PromptStates
from bystander.study.config.study import load
from bystander.study.engine.worker import Worker
from bystander.study.forecast.workload import Counter, Workload
from bystander.study.plan.cells import plan_cells
from bystander.study.store.run_dir import RunDir
from tests.support.study_tiny import make_model, write_study

NAMES = ("a", "b", "c", "d")
CONTEXTS = [Context("persona", name, f"You are {name}.") for name in NAMES]
STATES = np.random.default_rng(0).normal(size=(2, 4, 3, 5)).astype(np.float32)  # prompts and answers, three layers


def prompts():
    return [PromptStates(one, STATES[0, i], np.zeros((2, 7), np.float32)) for i, one in enumerate(CONTEXTS)]


def answers():
    return [AnswerStates(one, STATES[1, i], (3, 1), ("I say.", "No")) for i, one in enumerate(CONTEXTS)]


def test_each_predictor_reads_its_own_states():
    predictors = Predictors({"prompt": CenteredCosine(), "answer": AnswerCosine(), "words": LexicalOverlap()})
    seen = predictors.see(prompts(), NAMES, ["b"], [0, 4, 9], {}, {}, answers())
    found = {(one.method, one.layer, one.persona): one.value for one in predictors.similarities(seen, ["b"])}
    for method, states in (("prompt", STATES[0]), ("answer", STATES[1])):
        expected = centered_cosine(states.astype(np.float64))
        for place, layer in enumerate((0, 4, 9)):
            for i, name in enumerate(NAMES):
                assert found[method, layer, name] == pytest.approx(expected[place, 1, i])
    assert {layer for method, layer, _ in found if method == "words"} == {NO_LAYER}


def test_answers_are_not_touched_where_no_predictor_reads_them():
    def never():
        raise AssertionError("an answer was sampled for nobody")
        yield

    seen = Predictors({"prompt": CenteredCosine()}).see(prompts(), NAMES, ["b"], [0, 4, 9], {}, {}, never())
    assert seen.answer_states.size == 0


def test_a_study_whose_claim_rests_on_answers(tmp_path: Path, embedded: Path):
    """From a study file: what the plan says that it costs, and the table of the similarities."""
    path = write_study(tmp_path, make_model(tmp_path / "model"))
    usual = plan_cells(load(str(path)))
    assert "answer_cosine" not in usual.parts.predictors(), "answers cost much: only where they are asked for"
    plan = plan_cells(load(str(path), ["geometry.method=answer_cosine", "geometry.answer_tokens=5"]))
    counter = Counter(lambda text: len(text.split()), False, "words")
    (cell,), (plain,) = plan.of_kind("geometry"), usual.of_kind("geometry")
    more, less = Workload(plan, counter).of(cell), Workload(usual, counter).of(plain)
    assert (less.sampled, more.sampled) == (0, 8 * 2 * 5)  # personas, questions, tokens
    assert more.scored == 2 * less.scored + more.sampled
    run = RunDir(tmp_path / "run")
    Worker(plan, run, Silent()).do(cell)
    table = pl.read_parquet(run.cell(cell.name, cell.key).similarities_file)
    own = table.filter(pl.col("method") == "answer_cosine")
    assert sorted(own["layer"].unique()) == [0, 1, 2]
    of_itself = own.filter((pl.col("source") == "villain") & (pl.col("persona") == "villain"))
    assert of_itself["value"].to_list() == pytest.approx([1.0] * 3)
    prompt = table.filter(pl.col("method") == "cosine")
    assert not np.allclose(
        own.sort("layer", "source", "persona")["value"], prompt.sort("layer", "source", "persona")["value"]
    )
