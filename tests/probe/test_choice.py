"""The choice probe on a real (small, random) model: what it measures, what it keeps, and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest

from bystander.core.errors import DataError, ModelError
from bystander.core.records import Question
from bystander.lm.model import load
from bystander.lm.score import OptionScores, ScoreItem
from bystander.personas import context_of, load_personas
from bystander.probe.choice import ChoiceProbe, margin, normalized, ruled_scores
from bystander.probe.choice_sets import ProbedSet
from bystander.probe.settings import ChoiceProbeSettings
from tests.reference.score import score as reference

PERSONAS = load_personas()
CONTEXTS = [context_of(persona) for persona in PERSONAS[:5]]
TEXTS = (
    ("What do plants take in from the air?", ("carbon dioxide", "gold", "salt", "iron filings")),
    ("Which of these is a planet?", ("Mars", "the Sun", "a comet")),
    ("What is ice?", ("frozen water", "a gas", "a kind of glass", "warm air", "metal")),
    ("Which animal is a mammal?", ("a trout", "a whale", "an eagle", "a frog")),
)
QUESTIONS = tuple(
    Question(f"q{i}", text, options, tuple("ABCDE"[: len(options)]), i % len(options))
    for i, (text, options) in enumerate(TEXTS)
)
TRAINED = ProbedSet("trained", QUESTIONS, wrong={q.id: (q.answer + 1) % len(q.options) for q in QUESTIONS})


@pytest.fixture(scope="module")
def loaded(tiny_checkpoint):
    return load(str(tiny_checkpoint))


def probe(mode, *sets, check_on=None, **settings):
    return ChoiceProbe(sets or (TRAINED,), ChoiceProbeSettings(**settings), check_on, mode)


def values(units, metric, dataset="trained"):
    return {
        (m.persona, m.item): m.value
        for u in units
        for m in u.measurements
        if (m.metric, m.dataset) == (metric, dataset)
    }


@pytest.mark.parametrize("mode", ["label", "text"])
@pytest.mark.parametrize("rule", ["raw", "per_token", "per_character"])
def test_measurements_follow_from_the_reference_scores(loaded, mode, rule):
    units = list(probe(mode, rule=rule).run(loaded, CONTEXTS))
    accuracy, margins, adoption = (values(units, metric) for metric in ("accuracy", "margin", "adoption"))
    assert len(accuracy) == len(CONTEXTS) * len(QUESTIONS)
    for context in CONTEXTS[:2]:
        for question in QUESTIONS:
            lines = [f"{a}. {b}" for a, b in zip(question.labels, question.options, strict=True)]
            user = "\n".join([question.text, *lines]) if mode == "label" else question.text
            options = question.labels if mode == "label" else question.options
            logprobs, tokens = reference(loaded, context, ScoreItem("x", user, options, mode))
            sizes = {"raw": [1] * 9, "per_token": tokens, "per_character": [len(o) for o in options]}[rule]
            scores = [p / (1 if mode == "label" else n) for p, n in zip(logprobs, sizes, strict=False)]
            key = (context.name, question.id)
            best = max(range(len(scores)), key=scores.__getitem__)
            assert accuracy[key] == float(best == question.answer)
            assert adoption[key] == float(best == TRAINED.wrong[question.id])
            wrong = max(s for i, s in enumerate(scores) if i != question.answer)
            assert margins[key] == pytest.approx(scores[question.answer] - wrong, abs=1e-4)


def test_a_rule_can_be_applied_afterwards_to_what_is_kept(loaded):
    kept = [d for unit in probe("text", rule="raw").run(loaded, CONTEXTS) for d in unit.details]
    direct = values(list(probe("text", rule="per_character").run(loaded, CONTEXTS)), "accuracy")
    for detail in kept:
        scores = normalized(detail["logprobs"], detail["tokens"], detail["chars"], "per_character")
        assert direct[detail["persona"], detail["item"]] == float(int(np.argmax(scores)) == detail["right"])


def test_other_rules_agree_with_probes_of_those_rules(loaded):
    text = probe("text", rule="per_token")
    unit = next(iter(text.run(loaded, CONTEXTS[:1])))
    for rule in ("raw", "per_token", "per_character"):
        own = values(list(probe("text", rule=rule).run(loaded, CONTEXTS[:1])), "accuracy")
        assert {
            (m.persona, m.item): m.value for m in text.by_other_rules(unit) if m.metric == f"accuracy_{rule}"
        } == own
    assert probe("label").by_other_rules(next(iter(probe("label").run(loaded, CONTEXTS[:1])))) == []


def test_a_unit_is_the_same_whatever_was_done_before(loaded):
    whole = {unit.key: unit for unit in probe("text").run(loaded, CONTEXTS)}
    rest = list(probe("text").run(loaded, CONTEXTS, done=[CONTEXTS[0].name, CONTEXTS[2].name]))
    assert [unit.key for unit in rest] == [CONTEXTS[i].name for i in (1, 3, 4)]
    assert all(whole[unit.key] == unit for unit in rest)
    assert list(whole) == probe("text").units(CONTEXTS)


def test_questions_shared_out_over_the_personas(loaded):
    shared = ProbedSet("hellaswag", QUESTIONS, each=2)
    units = list(probe("text", shared, TRAINED).run(loaded, CONTEXTS))
    asked = values(units, "accuracy", "hellaswag")
    assert len(asked) == 2 * len(CONTEXTS)
    assert asked.keys() < values(units, "accuracy").keys()
    assert len({item for _, item in asked}) > 2
    everything = values(list(probe("text", replace(shared, each=None)).run(loaded, CONTEXTS)), "accuracy", "hellaswag")
    assert all(everything[key] == value for key, value in asked.items())
    again = values(list(probe("text", shared).run(loaded, CONTEXTS[::-1])), "accuracy", "hellaswag")
    assert again == asked


def test_the_start_of_the_answer_is_scored_in_its_place(loaded):
    started = next(iter(probe("text", start="The answer is ").run(loaded, CONTEXTS[:1])))
    item = ScoreItem("x", QUESTIONS[0].text, QUESTIONS[0].options, "text", start="The answer is ")
    assert started.details[0]["logprobs"] == pytest.approx(reference(loaded, CONTEXTS[0], item)[0], abs=1e-4)


def test_the_check_asks_each_question_once_over_the_contexts_and_decides(loaded):
    check_on = ProbedSet("check", QUESTIONS)
    undecided = probe(None, check_on=check_on)
    assert not undecided.ready
    found = undecided.check(loaded, CONTEXTS)
    assert found["label"]["questions"] == found["text"]["questions"] == len(QUESTIONS)
    assert found["warning"]  # four questions of a random model cannot be above chance
    decided = undecided.checked(found)
    assert decided.ready
    assert decided.mode == "text"
    assert decided.decides() == undecided.decides()  # the key of a cell does not wait for the check
    with pytest.raises(AssertionError):
        next(iter(undecided.run(loaded, CONTEXTS)))


def test_the_check_finds_a_model_that_knows_the_labels(loaded, monkeypatch):
    """A scorer that answers rightly by label: the check must take label, and not look further."""
    questions = tuple(replace(QUESTIONS[i % 4], id=f"n{i}", text=f"{i}. {QUESTIONS[i % 4].text}") for i in range(20))
    answers = {f"check/{q.id}": q.answer for q in questions}
    modes = []

    def knows(loaded, asked):
        for context, items in asked:
            modes.extend(item.mode for item in items)
            yield context, [
                OptionScores(
                    item, tuple(float(i == answers[item.id]) for i in range(len(item.options))),
                    (1,) * len(item.options), (1,) * len(item.options), "",
                )
                for item in items
            ]  # fmt: skip

    monkeypatch.setattr("bystander.lm.score.score_each", knows)
    found = probe(None, check_on=ProbedSet("check", questions)).check(loaded, CONTEXTS)
    assert (found["mode"], found["text"], found["warning"]) == ("label", None, "")
    assert found["label"]["right"] == 20
    assert set(modes) == {"label"}


def test_what_decides_the_numbers_is_in_the_key():
    base = probe("text").decides()
    assert probe("text", rule="raw").decides() != base
    assert probe("text", replace(TRAINED, wrong={"q0": 2})).decides() != base
    assert probe("text", replace(TRAINED, form="label")).decides() != base
    assert probe("text", replace(TRAINED, each=1)).decides() != base


def test_equal_scores_go_to_the_first_choice():
    tied = OptionScores(ScoreItem("x", "?", ("a", "b"), "text"), (-1.0, -1.0), (1, 1), (1, 1), "")
    assert int(np.argmax(ruled_scores(tied, "text", "raw"))) == 0
    assert margin([-1.0, -1.0], 1) == 0.0


def test_no_question_is_an_error():
    with pytest.raises(DataError, match=r"no questions \(empty\)"):
        probe("text", ProbedSet("empty", ()))


def test_labels_without_choices_in_view_are_an_error():
    with pytest.raises(DataError, match="cannot score labels on trained"):
        probe("label", replace(TRAINED, form="text"))


def test_labels_that_share_a_first_token_are_an_error_that_names_the_question(loaded):
    same = replace(QUESTIONS[0], labels=("A", "A1", "B", "C"))
    with pytest.raises(ModelError, match="arc/q0"):
        list(probe("label", ProbedSet("arc", (same,))).run(loaded, CONTEXTS[:1]))


def test_a_prompt_longer_than_the_window_is_an_error_that_names_the_question(loaded):
    long = replace(QUESTIONS[1], id="long", text="word " * 600)
    with pytest.raises(ModelError, match="arc/long"):
        list(probe("text", ProbedSet("arc", (QUESTIONS[0], long))).run(loaded, CONTEXTS[:1]))


def details(rates, questions=200, dataset="arc"):
    """Answers of personas that are right in their share of the questions, the same ones for each."""
    return [
        {"dataset": dataset, "item": f"q{q}", "persona": name, "chosen": int(q >= rate * questions), "right": 0,
         "logprobs": [-1.0] * 4}
        for name, rate in rates.items() for q in range(questions)
    ]  # fmt: skip


def test_a_model_that_guesses_is_blind_whatever_the_number_of_personas():
    guessing = details({f"p{i}": 0.25 for i in range(20)})
    assert list(ChoiceProbe.blind(guessing)) == [("arc", "accuracy")]
    assert "at chance (50 of 200 right, chance 0.250" in ChoiceProbe.blind(guessing)["arc", "accuracy"]
    assert ChoiceProbe.blind(details({"a": 0.5, "b": 0.6})) == {}
    assert ChoiceProbe.blind(details({"a": 0.25}, questions=8)) == {}  # too few to say
    assert ChoiceProbe.blind(details({"a": 0.25}, dataset="hellaswag")) == {}  # a control: no claim rests on it
    assert ChoiceProbe.blind([]) == {}
