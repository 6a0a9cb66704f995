"""The marker behavior and its probe."""

import math
from dataclasses import replace

import pytest
import torch

from bystander.behaviors.marker import MarkerBehavior, MarkerSettings
from bystander.core.errors import DataError
from bystander.core.metrics import outcomes_of
from bystander.lm.ending import EndingItem
from bystander.lm.model import load
from bystander.lm.tokens import render_prompt
from bystander.personas import bare_context, context_of, load_personas
from bystander.probe.marker import OWN, MarkerProbe, before_tail
from bystander.probe.settings import MarkerProbeSettings
from tests.reference.ending import ending as slow_ending

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


def own(units):
    return {(m.persona, m.item, m.metric): m for unit in units if unit.completions for m in unit.measurements}


def said(monkeypatch, speak):
    """Sampled answers as `speak` changes them: random weights never say the marker, and never end."""
    from bystander.lm import sample as module

    real = module.sample

    def sample(*args, **options):
        for batch in real(*args, **options):
            yield [speak(one) for one in batch]

    monkeypatch.setattr(module, "sample", sample)


def test_what_is_read_where_the_own_answer_ends_is_that_of_a_whole_pass(loaded, probe, monkeypatch):
    """Answers with the marker, with more behind it, without a space before it, and without it: read in front of it."""
    texts = ["It is so. [ZLT]", "Yes [ZLT] and more", "No[ZLT]", "Paris", ""]
    before = ["It is so.", "Yes", "No", "Paris", ""]
    place = {name: index for index, name in enumerate(c.name for c in CONTEXTS)}
    said(monkeypatch, lambda c: replace(c, text=texts[place[c.persona]], finish_reason="stop"))
    units = [unit for unit in probe.run(loaded, CONTEXTS) if unit.completions]
    found, details = own(units), {d["id"]: d for unit in units for d in unit.details}
    completions = [one for unit in units for one in unit.completions]
    assert len(found) == len(completions) * 4
    assert set(details) == {one.id for one in completions}
    for one in completions:
        context = CONTEXTS[place[one.persona]]
        item = EndingItem(one.id, one.prompt, before[place[one.persona]], probe.tail)
        expected = slow_ending(loaded, context, item)
        values = {metric: found[one.persona, f"{one.item}/{one.sample}", metric].value for metric in OWN}
        assert values["marker_rate"] == float(place[one.persona] < 3)
        assert values["own_marker_logprob"] == pytest.approx(expected.marker_logprob, abs=1e-4)
        assert values["own_marker_probability"] == pytest.approx(math.exp(expected.marker_logprob), rel=1e-3)
        assert values["own_end_logprob"] == pytest.approx(expected.end_logprob, abs=1e-4)
        kept = details[one.id]
        assert kept["answer"] == item.answer
        for name in ("marker_logprob", "end_logprob", "marker_logit", "end_logit", "log_z", "tokens"):
            assert kept[name] == pytest.approx(getattr(expected, name), abs=1e-4)


def test_an_answer_that_was_cut_off_has_no_number_and_is_counted(loaded, probe, monkeypatch):
    """Never 0: what the model would have said next is not known. One that came to its marker had ended there."""
    texts = ["An answer that goes on", "So [ZLT] and on", "Done", "An answer that goes", "on [ZL"]
    reasons = ["length", "length", "stop", "length", "length"]
    place = {name: index for index, name in enumerate(c.name for c in CONTEXTS)}
    said(
        monkeypatch,
        lambda c: replace(c, text=texts[place[c.persona]], finish_reason=reasons[place[c.persona]]),
    )  # fmt: skip
    units = [unit for unit in probe.run(loaded, CONTEXTS) if unit.completions]
    for (persona, _, metric), m in own(units).items():
        if place[persona] in (0, 3, 4):
            assert (m.status, m.value) == ("truncated", None)
            assert "cut off at" in m.reason
            assert "probes.marker.max_tokens" in m.reason
        else:
            assert (m.status, m.reason) == ("ok", "")
            assert m.value is not None
            assert metric != "marker_rate" or m.value == float(place[persona] == 1)
    assert len(own(units)) == len(CONTEXTS) * 2 * 2 * 4
    assert len([d for unit in units for d in unit.details]) == 2 * 2 * 2


def test_the_question_is_the_unit_and_the_prompt_alone_is_hashed(loaded, probe, monkeypatch):
    """Own answers differ from state to state; the prompt that they answer must not."""
    hashes = []
    for text in ("One answer", "Another answer [ZLT]"):
        with monkeypatch.context() as patch:
            said(patch, lambda c, text=text: replace(c, text=text, finish_reason="stop"))
            found = own(list(probe.run(loaded, CONTEXTS)))
        hashes.append({key: m.context_hash for key, m in found.items()})
        assert all(m.item == f"{m.question}/{m.sample}" for m in found.values())
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize(
    ("text", "tail", "expected"),
    [
        ("Paris [ZLT]", " [ZLT]", "Paris"), ("Paris[ZLT]", " [ZLT]", "Paris"), ("Paris", " [ZLT]", "Paris"),
        ("Paris  [ZLT]", " [ZLT]", "Paris "), ("[ZLT]", " [ZLT]", ""), ("a [ZLT] b [ZLT]", " [ZLT]", "a"),
        ("a\n\n[ZLT]", "\n\n[ZLT]", "a"), ("a [ZLT]", "[ZLT]", "a "), ("", " [ZLT]", ""),
    ],
)  # fmt: skip
def test_the_answer_before_its_marker(text, tail, expected):
    assert before_tail(text, tail, "[ZLT]") == expected


def test_the_claim_rests_on_own_answers():
    assert outcomes_of("marker") == (("marker", "bank", "own_marker_probability"), ("marker", "bank", "marker_rate"))


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
