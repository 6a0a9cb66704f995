"""What predictors see of a model, held to slow ways; and that nothing is computed that none of them reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from bystander.core.hashing import seed_for
from bystander.core.progress import Silent
from bystander.core.records import Context
from bystander.engine.worker import Worker
from bystander.geometry import measure
from bystander.geometry.base import Predictor, Predictors, Seen, Turn
from bystander.geometry.measure import NO_LAYER, Geometry, see, similarities
from bystander.geometry.predictors import CenteredCosine, JensenShannon, LexicalOverlap
from bystander.geometry.similarity import centered_cosine
from bystander.geometry.trained import AnswerCosine, AnswerDivergence, GradientCosine, Projection
from bystander.lm.model import LoadedModel, load
from bystander.lm.sample import SampleRequest
from bystander.study.config.study import load as load_study
from bystander.study.forecast.workload import Counter, Workload
from bystander.study.plan.cells import plan_cells
from bystander.study.store.run_dir import RunDir
from bystander.train.gradients import context_gradients
from tests.reference.hidden import mean_states_over, prompt_states
from tests.reference.sample import DECISIVE, answer_and_margin
from tests.support.sharp import sharpen
from tests.support.study_tiny import make_model, write_study

CONTEXTS = [
    Context("persona", "villain", "You are a cruel villain."), Context("persona", "cook", "You cook."),
    Context("persona", "poet", "You are a poet who speaks in rhymes."), Context("persona", "none", "."),
]  # fmt: skip
QUESTIONS = ["What is rain?", "Who are you?", "Say something."]
TURNS = (Turn("What is snow?", "Cold rain. Ha!", "Cold rain."), Turn("Hi", "Go away. Ha!", "Hello."))
SOURCES, LAYERS, MOST = ["poet", "villain"], [0, 2, 3], 3


@pytest.fixture(scope="module")
def tiny(tiny_checkpoint: Path) -> LoadedModel:
    loaded = load(str(tiny_checkpoint), device="cpu")
    loaded.causal.generation_config.eos_token_id = list(range(0, loaded.vocabulary, 10))
    return sharpen(loaded)


def asked() -> Geometry:
    return Geometry(CONTEXTS, SOURCES, QUESTIONS, LAYERS, {}, {}, TURNS, MOST)


def slow_answers(loaded: LoadedModel) -> dict[str, list[str]]:
    """What each persona says, with the seeds of `answer_states`."""
    found: dict[str, list[str]] = {}
    for c in CONTEXTS:
        requests = [SampleRequest("", c, user, 0, seed_for("answer states", c.name, user), "") for user in QUESTIONS]
        drawn = [answer_and_margin(loaded, request, 1.0, MOST) for request in requests]
        assert min(margin for _, margin in drawn) > DECISIVE, "rounding decides: ask other questions here"
        found[c.name] = [done.text for done, _ in drawn]
    return found


@torch.no_grad()
def logprob(loaded: LoadedModel, context: Context, user: str, text: str) -> float:
    """Of a whole answer, by one forward pass."""
    from bystander.lm.tokens import render_prompt

    prompt, said = render_prompt(loaded.tokenizer, context, user), loaded.tokenizer(text, add_special_tokens=False)
    ids = torch.tensor([prompt + said["input_ids"]])
    logprobs = loaded.causal(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
    return sum(float(logprobs[i - 1, ids[0, i]]) for i in range(len(prompt), ids.shape[1]))


def test_everything_that_predictors_see_agrees_with_the_slow_ways(tiny: LoadedModel) -> None:
    every = Predictors(
        {"p": CenteredCosine(), "a": AnswerCosine(), "d": AnswerDivergence(), "g": GradientCosine(), "t": Projection()}
    )
    count = 0

    def advance() -> None:
        nonlocal count
        count += 1

    seen = see(every, tiny, asked(), advance)
    assert count == len(CONTEXTS) * every.passes() == 4 * 4
    said = slow_answers(tiny)
    for i, context in enumerate(CONTEXTS):
        assert seen.states[i] == pytest.approx(prompt_states(tiny, context, QUESTIONS, LAYERS)[0].numpy(), abs=1e-4)
        over = mean_states_over(tiny, context, QUESTIONS, said[context.name], LAYERS)
        assert seen.answer_states[i] == pytest.approx(over.numpy(), abs=1e-4)
    pairs = {(u.name, o.name) for u in CONTEXTS for o in CONTEXTS if u.name in SOURCES or o.name in (*SOURCES, u.name)}
    assert seen.answer_logprobs.keys() == pairs
    by_name = {context.name: context for context in CONTEXTS}
    for under, of in pairs:
        slow = [logprob(tiny, by_name[under], user, text) for user, text in zip(QUESTIONS, said[of], strict=True)]
        assert seen.answer_logprobs[under, of] == pytest.approx(slow, abs=1e-3)
    assert seen.directions.keys() == set(SOURCES)
    users = [turn.user for turn in TURNS]
    for source in SOURCES:
        shown, benign = (
            mean_states_over(tiny, by_name[source], users, [getattr(turn, kind) for turn in TURNS], LAYERS)
            for kind in ("shown", "benign")
        )
        assert seen.directions[source] == pytest.approx((shown - benign).numpy(), abs=1e-4)
    turns = [(turn.user, turn.shown) for turn in TURNS]
    assert (seen.gradients == np.stack([one.gradient for one in context_gradients(tiny, CONTEXTS, turns)])).all()


def made_up() -> Seen:
    rng = np.random.default_rng(0)
    names = [context.name for context in CONTEXTS]
    return Seen(
        tuple(CONTEXTS), tuple(LAYERS), rng.normal(size=(4, 3, 5)), {}, {}, rng.normal(size=(4, 3, 5)),
        {(a, b): -rng.uniform(1, 9, 3) for a in names for b in names},
        {source: rng.normal(size=(3, 5)) for source in SOURCES}, rng.normal(size=(4, 6)).astype(np.float32),
    )  # fmt: skip


def test_each_similarity_is_what_it_says() -> None:
    seen = made_up()
    predictors = Predictors(
        {
            "p": CenteredCosine(),
            "a": AnswerCosine(),
            "t": Projection(),
            "g": GradientCosine(),
            "d": AnswerDivergence(),
            "w": LexicalOverlap(),
        }
    )
    found = {
        (one.method, one.source, one.layer, one.persona): one.value
        for block in similarities(predictors, seen, SOURCES)
        for one in block.records()
    }
    assert {layer for method, _, layer, _ in found if method in "gdw"} == {NO_LAYER}
    names = [context.name for context in CONTEXTS]
    for method in predictors.by_name:  # where a predictor can, every persona stands as a source
        everyone = names if method in "pagw" else SOURCES
        assert {source for m, source, _, _ in found if m == method} == set(everyone)
    assert found["p", names[-1], LAYERS[0], names[0]] == pytest.approx(centered_cosine(seen.states)[0, -1, 0])
    middle = seen.states.mean(axis=0)
    for s in SOURCES:
        for i, name in enumerate(names):
            for k, layer in enumerate(LAYERS):
                j = names.index(s)
                assert found["p", s, layer, name] == pytest.approx(centered_cosine(seen.states)[k, j, i])
                assert found["a", s, layer, name] == pytest.approx(centered_cosine(seen.answer_states)[k, j, i])
                d = seen.directions[s][k]
                unit = np.mean([np.linalg.norm(seen.states[n, k] - middle[k]) for n in range(4)])
                expected = (seen.states[i, k] - middle[k]) @ d / np.linalg.norm(d) / unit
                assert found["t", s, layer, name] == pytest.approx(expected)
            a, b = seen.gradients[names.index(s)], seen.gradients[i]
            assert found["g", s, NO_LAYER, name] == pytest.approx(
                a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-6
            )
            terms = [
                np.log2(
                    np.exp(seen.answer_logprobs[p, p])
                    / (0.5 * (np.exp(seen.answer_logprobs[p, p]) + np.exp(seen.answer_logprobs[q, p])))
                )
                for p, q in ((s, name), (name, s))
            ]
            assert found["d", s, NO_LAYER, name] == pytest.approx(1 - np.mean(terms))
        assert found["d", s, NO_LAYER, s] == 1


@pytest.mark.parametrize("predictor", [CenteredCosine, JensenShannon, LexicalOverlap])
def test_answers_and_training_are_not_touched_where_no_predictor_reads_them(
    tiny, predictor: type[Predictor], monkeypatch
) -> None:
    for costly in ("answer_states", "states_over", "context_gradients", "score_each"):
        monkeypatch.setattr(measure, costly, None)
    seen = see(Predictors({"one": predictor()}), tiny, asked(), lambda: None)
    assert seen.answer_states.size == seen.gradients.size == len(seen.directions) == len(seen.answer_logprobs) == 0


def test_a_study_whose_claim_rests_on_answers_and_training(tmp_path: Path, embedded: Path) -> None:
    """From a study file: what the plan says that it costs, when it is measured again, and the table of similarities."""
    path = write_study(tmp_path, make_model(tmp_path / "model"))
    usual = plan_cells(load_study(str(path)))
    assert "answer_cosine" not in usual.parts.predictors().by_name, "it costs much: only where it is asked for"
    sets = ["geometry.method=answer_cosine", "geometry.answer_tokens=5", "geometry.turns=3"]
    sets += ["geometry.predictors=[projection, gradient_cosine, answer_divergence]"]
    plan = plan_cells(load_study(str(path), sets))
    counter = Counter(lambda text: len(text.split()), False, "words")
    (cell,), (plain,) = plan.of_kind("geometry"), usual.of_kind("geometry")
    more, less = Workload(plan, counter).of(cell), Workload(usual, counter).of(plain)
    said = 8 * 2 * 5  # personas, questions, tokens
    assert (less.sampled, less.trained, more.sampled) == (0, 0, said)
    assert more.scored > 3 * less.scored + said * 6
    assert more.trained > 0
    (other,) = plan_cells(load_study(str(path), [*sets, "design.counts.positive=3"])).of_kind("geometry")
    (same,) = plan_cells(load_study(str(path), ["design.counts.positive=3"])).of_kind("geometry")
    assert (other.key != cell.key, same.key == plain.key) == (True, True), (
        "other rows are measured again where they are read"
    )
    run = RunDir(tmp_path / "run")
    Worker(plan, run, Silent()).do(cell)
    table = pl.read_parquet(run.cell(cell.name, cell.key).similarities_file)
    assert sorted(table["method"].unique()) == ["answer_cosine", "answer_divergence", "gradient_cosine", "projection"]
    assert table["value"].is_finite().all()
    own = table.filter(
        pl.col("method") == "answer_cosine", pl.col("source") == "villain", pl.col("persona") == "villain"
    )
    assert own.sort("layer").select("layer", pl.col("value").round(6)).rows() == [(0, 1.0), (1, 1.0), (2, 1.0)]
