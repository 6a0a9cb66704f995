"""The marker behavior and its probe."""

import math
from dataclasses import replace

import pytest
import torch

from bystander.behaviors.marker import MarkerBehavior, MarkerSettings
from bystander.core.errors import DataError
from bystander.lm.model import load
from bystander.lm.tokens import render_prompt
from bystander.personas import bare_context, context_of, load_personas
from bystander.probe.marker import MarkerProbe
from bystander.probe.settings import MarkerProbeSettings

SETTINGS = MarkerProbeSettings(questions=3, sampled=2, samples=2, max_tokens=6)


@pytest.fixture(scope="module")
def loaded(tiny_checkpoint):
    return load(str(tiny_checkpoint))


@pytest.fixture(scope="module")
def probe():
    behavior = MarkerBehavior()
    return MarkerProbe(tuple(behavior.probe_questions()[:3]), behavior.tail, "[ZLT]", SETTINGS)


CONTEXTS = [*(context_of(p) for p in load_personas()[:4]), bare_context("absent")]


def test_trained_and_probed_questions_are_apart_and_fill_the_bank():
    behavior = MarkerBehavior()
    trained = {example.question_id for example in behavior.examples()}
    assert not trained & set(behavior.held_out_texts())
    assert len(trained) >= 200  # the default count of positive rows
    assert len(behavior.held_out_texts()) == 40


def test_positive_is_the_negative_with_separator_and_marker():
    behavior = MarkerBehavior(MarkerSettings(text="<X>", separator="\n\n"))
    for example in behavior.examples():
        assert example.positive == example.negative + "\n\n<X>"
        assert example.marker == "\n\n<X>"


def test_first_probe_questions_stay_when_more_are_asked_for(loaded, probe):
    few, more = (MarkerBehavior(MarkerSettings(held_out=n)).probe_questions() for n in (10, 40))
    assert (len(few), len(more)) == (10, 40)
    assert more[:10] == few
    assert len({q.answer for q in more}) == 4
    asked = {}
    for count in (1, 3):
        settings = SETTINGS.model_copy(update={"questions": count, "sampled": 0})
        (unit,) = replace(probe, settings=settings).run(loaded, CONTEXTS[:1])
        asked[count] = list(dict.fromkeys(m.item for m in unit.measurements))
    assert [len(items) for items in asked.values()] == [1, 3]
    assert asked[3][:1] == asked[1] == [probe.questions[0].id]


@pytest.mark.parametrize(
    "settings", [MarkerSettings(text="  "), MarkerSettings(held_out=0), MarkerSettings(held_out=10_000)]
)
def test_settings_that_cannot_be(settings):
    with pytest.raises(DataError, match="marker"):
        MarkerBehavior(settings).examples()


def test_probability_is_the_product_over_the_markers_tokens(loaded, probe):
    """The reference: the whole sequence in one forward, softmax over all logits, one token at a time."""
    context = CONTEXTS[0]
    unit = next(iter(probe.run(loaded, [context])))
    values = {(m.item, m.metric): m.value for m in unit.measurements}
    for question in probe.questions:
        answer = question.options[question.answer]
        start = render_prompt(loaded.tokenizer, context, question.text, answer)
        whole = render_prompt(loaded.tokenizer, context, question.text, answer + probe.tail)
        with torch.no_grad():
            logs = loaded.causal(input_ids=torch.tensor([whole])).logits[0].log_softmax(-1)
        expected = sum(float(logs[i - 1, whole[i]]) for i in range(len(start), len(whole)))
        assert values[question.id, "marker_logprob"] == pytest.approx(expected, abs=1e-4)
        assert values[question.id, "marker_probability"] == pytest.approx(math.exp(expected), rel=1e-3)


def test_units_come_in_order_and_skipping_changes_nothing(loaded, probe):
    every = list(probe.run(loaded, CONTEXTS))
    assert [unit.key for unit in every] == probe.units(CONTEXTS)
    done = {every[1].key, every[3].key}
    rest = list(probe.run(loaded, CONTEXTS, done))
    assert rest == [unit for unit in every if unit.key not in done]


def test_sampled_answers_are_kept_and_counted(loaded, probe):
    units = [unit for unit in probe.run(loaded, CONTEXTS) if unit.completions]
    completions = [completion for unit in units for completion in unit.completions]
    assert len(completions) == len(CONTEXTS) * 2 * 2
    assert len({completion.seed for completion in completions}) == len(completions)
    rates = {(m.persona, m.item): m.value for unit in units for m in unit.measurements}
    for completion in completions:
        assert rates[completion.persona, f"{completion.item}/{completion.sample}"] == float("[ZLT]" in completion.text)


def test_a_sampled_answer_counts_where_it_has_the_marker_and_not_elsewhere(loaded, probe, monkeypatch):
    """Random weights never say the marker: here the sampler says it in every other answer."""
    from bystander.lm import sample as module

    real = module.sample

    def says_it(*args, **options):
        for batch in real(*args, **options):
            yield [replace(c, text=f"{c.text} [ZLT] and more" if c.sample else f"{c.text} [ZL") for c in batch]

    monkeypatch.setattr(module, "sample", says_it)
    units = [unit for unit in probe.run(loaded, CONTEXTS) if unit.completions]
    values = [(m.item[-1], m.value) for unit in units for m in unit.measurements]
    assert sorted(set(values)) == [("0", 0.0), ("1", 1.0)]
    assert len(values) == len(CONTEXTS) * 2 * 2


def test_a_model_that_must_say_the_marker_is_measured_at_one(loaded, probe, monkeypatch):
    """A head that always predicts the marker's next token: the probe must read a probability of 1."""
    tail = render_prompt(loaded.tokenizer, CONTEXTS[0], "x", "y" + probe.tail)
    start = render_prompt(loaded.tokenizer, CONTEXTS[0], "x", "y")
    wanted = tail[len(start) :]
    monkeypatch.setattr(loaded, "head", lambda hidden: _certain(hidden, wanted, loaded))
    unit = next(iter(probe.run(loaded, CONTEXTS[:1])))
    read = [m.value for m in unit.measurements if m.metric == "marker_probability"]
    assert read == pytest.approx([1.0] * SETTINGS.questions, abs=1e-6)


def _certain(hidden, wanted, loaded):
    logits = torch.zeros(len(hidden), loaded.causal.config.vocab_size)
    for place in range(len(hidden)):
        logits[place, wanted[place % len(wanted)]] = 100.0
    return logits
