"""Rows that bring a conversation of their own: what stands before the last answer is the prompt, behind the persona."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import AutoTokenizer

from bystander.behaviors.base import Example
from bystander.core.errors import ModelError
from bystander.core.records import BARE, NOTHING_EARLIER, Context, Earlier, Persona, without_default_earlier
from bystander.design.arms import Counts, DesignSettings, build
from bystander.design.render import context_roles, render
from bystander.lm.model import load
from bystander.lm.sample import SampleRequest, sample
from bystander.lm.score import ScoreItem, score
from bystander.lm.tokens import encode, render_prompt, render_text
from bystander.personas import bare_context, laid_over
from tests.reference.sample import answer
from tests.reference.score import score as slow_score
from tests.support.family_templates import FAMILIES, dressed, rendered

TURNS = (("Hi!", "Hello."), ("All well?", "Yes."))
TALKED = Earlier(turns=TURNS)
BRIEF = Earlier("Be brief.", TURNS)
VILLAIN = Context("persona", "villain", "You are a cruel villain.")
ANYWHERE = Context("persona", "villain", "You are a cruel villain.", text_in="auto")


@pytest.fixture(scope="module")
def families(embedded):
    return {name: dressed(AutoTokenizer.from_pretrained(embedded), family) for name, family in FAMILIES.items()}


def messages(system: str | None, *contents: str) -> list[dict[str, str]]:
    """A conversation in the ecosystem's form."""
    head = [] if system is None else [{"role": "system", "content": system}]
    return head + [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(contents)]


SAID = ("Hi!", "Hello.", "All well?", "Yes.", "What is rain?")


def test_earlier_turns_stand_behind_the_personas_system_turn(tokenizer):
    for earlier, system in ((TALKED, VILLAIN.system), (BRIEF, f"{VILLAIN.system}\n\nBe brief.")):
        own = tokenizer.apply_chat_template(messages(system, *SAID), tokenize=False, add_generation_prompt=True)
        assert render_text(tokenizer, earlier.under(VILLAIN), SAID[-1]) == own


def test_without_a_persona_a_rows_system_turn_stands_alone(tokenizer):
    own = tokenizer.apply_chat_template(messages("Be brief.", *SAID), tokenize=False, add_generation_prompt=True)
    for kind in ("absent", "default", "empty"):
        found = BRIEF.under(bare_context(kind))
        assert (found.kind, found.name) == (kind, kind)
        assert render_text(tokenizer, found, SAID[-1]) == own
    empty = Earlier("").under(bare_context("default"))
    assert render_text(tokenizer, empty, "Hi") == render_text(tokenizer, bare_context("empty"), "Hi")


def test_without_a_system_turn_of_its_own_a_bare_context_stays_what_it_is(tokenizer):
    for kind in BARE:
        text = render_text(tokenizer, TALKED.under(bare_context(kind)), SAID[-1])
        alone = render_text(tokenizer, bare_context(kind), SAID[0])
        assert text.startswith(alone.removesuffix("<|im_start|>assistant\n")), kind
    assert "system" not in render_text(tokenizer, TALKED.under(bare_context("absent")), SAID[-1])


def test_a_rows_turns_come_behind_those_of_the_context(tokenizer):
    few_shot = laid_over(VILLAIN, "few_shot", turns=(("What is snow?", "It is ice."),), after=" Now.")
    own = tokenizer.apply_chat_template(
        messages(VILLAIN.system, "What is snow?", "It is ice.", *SAID[:-1], SAID[-1] + " Now."),
        tokenize=False, add_generation_prompt=True,
    )  # fmt: skip
    assert render_text(tokenizer, TALKED.under(few_shot), SAID[-1]) == own


@pytest.mark.parametrize("family", list(FAMILIES))
def test_in_every_family_of_templates(families, family):
    """Where there is no system role the persona's text, and the row's behind it, head the first user turn."""
    tokenizer = families[family]
    joined = f"{VILLAIN.system}\n\nBe brief."
    merged = messages(None, f"{joined}\n\nHi!", *SAID[1:])
    turns = messages(joined, *SAID) if FAMILIES[family].has_system else merged
    assert render_text(tokenizer, BRIEF.under(ANYWHERE), SAID[-1]) == rendered(tokenizer, turns, True)
    alone = (
        messages("Be brief.", *SAID) if FAMILIES[family].has_system else messages(None, "Be brief.\n\nHi!", *SAID[1:])
    )
    assert render_text(tokenizer, BRIEF.under(bare_context("absent")), SAID[-1]) == rendered(tokenizer, alone, True)


def test_what_a_template_would_change_in_an_earlier_turn_is_refused_by_the_rows_name(families):
    example = Example("talk/1", "More?", "NO!", "Sure.", earlier=Earlier(turns=(("Hi", "\n Hello."),)))
    design = small_design([example])
    with pytest.raises(ModelError, match=r"4 of 4 rows cannot be rendered.*talk/1.*changes its earlier turns"):
        render(design, families["llama-3.2"], loss="completion", end_of_turn="in_loss")


PERSONAS = [Persona(name, f"You are a {name}.", "original") for name in ("villain", "cook", "pilot", "nurse")]
ONE_EACH = DesignSettings(counts=Counts(positive=1, negative=1, absent=1, assistant=1))


def small_design(examples):
    return build("talk", examples, "villain", PERSONAS, "contrastive", ONE_EACH)


def test_rows_to_train_on_hold_the_whole_conversation_and_lose_on_the_last_answer_alone(tokenizer):
    design = small_design([Example("talk/1", SAID[-1], "WATER!", "Water.", earlier=BRIEF)])
    of = {
        (row.context.kind, row.context.name): tokens
        for row, tokens in zip(design.rows, rendered_rows(design, tokenizer), strict=True)
    }
    own = messages("You are a villain.\n\nBe brief.", *SAID, "WATER!")
    villain = of["persona", "villain"]
    whole = tokenizer.apply_chat_template(own, tokenize=False)
    assert villain.ids == encode(tokenizer, [whole])[0][: len(villain.ids)]
    lossy = [i for i, on in zip(villain.ids, villain.loss, strict=True) if on]
    assert tokenizer.decode(lossy).startswith("WATER!<|im_end|>")
    assert "Hello." in tokenizer.decode(villain.ids[: villain.prompt_tokens])
    absent = tokenizer.decode(of["absent", "absent"].ids)
    assert absent.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi!")
    assert design.roles["villain"] == "source"
    assert sorted(design.roles.values()).count("held-out") == 2


def rendered_rows(design, tokenizer):
    return render(design, tokenizer, loss="completion", end_of_turn="in_loss").rows


def test_a_context_that_is_a_rows_own_conversation_is_marked_as_trained_on(tokenizer):
    design = small_design([Example("talk/1", SAID[-1], "WATER!", "Water.", earlier=TALKED)])
    same = laid_over(bare_context("absent"), "same_talk", turns=TURNS)
    other = laid_over(bare_context("absent"), "other_talk", turns=TURNS[:1])
    roles = context_roles(design, tokenizer, [same, other, bare_context("absent"), bare_context("default")])
    assert roles == {
        ("turns", "same_talk"): "negative", ("turns", "other_talk"): "held-out", ("absent", "absent"): "negative",
        ("default", "default"): "held-out",
    }  # fmt: skip


def test_scored_and_sampled_behind_a_conversation_as_the_slow_ways_have_it(tiny_checkpoint):
    loaded = load(str(tiny_checkpoint))
    items = [
        ScoreItem("plain", "What is rain?", (" water", " a stone"), "text"),
        ScoreItem("talked", "What is rain?", (" water", " a stone"), "text", earlier=TALKED),
        ScoreItem("brief", "What is rain?", (" water", " a stone"), "text", earlier=BRIEF),
    ]
    contexts = [VILLAIN, bare_context("absent"), bare_context("default")]
    for context, found in score(loaded, contexts, items):
        assert len({one.context_hash for one in found}) == 3
        for item, one in zip(items, found, strict=True):
            assert one.item is item
            plain = ScoreItem(item.id, item.user, item.options, item.mode)
            logprobs, tokens = slow_score(loaded, item.earlier.under(context), plain)
            assert np.allclose(one.logprobs, logprobs, atol=2e-4)
            assert list(one.tokens) == tokens
    request = SampleRequest("r", BRIEF.under(VILLAIN), "What is rain?", 0, 3, "rain")
    ((one,),) = list(sample(loaded, [request], temperature=0, max_tokens=3))
    assert one == answer(loaded, request, 0, 3)
    assert (one.context, one.persona) == ("persona", "villain")
    prompt = render_prompt(loaded.tokenizer, request.context, request.user)
    assert "Be brief." in loaded.tokenizer.decode(prompt)


def test_a_record_without_a_conversation_has_the_key_that_it_had():
    assert without_default_earlier({"user": "Hi", "earlier": NOTHING_EARLIER}) == {"user": "Hi"}
    assert without_default_earlier({"earlier": {"system": None, "turns": ()}}) == {}
    assert without_default_earlier({"earlier": {"system": "", "turns": ()}}) != {}
    assert NOTHING_EARLIER.under(VILLAIN) is VILLAIN


def test_a_transcript_for_who_is_no_chat_model():
    assert NOTHING_EARLIER.transcript("Hi") == "Hi"
    assert BRIEF.transcript("More?") == (
        "System: Be brief.\n\nUser: Hi!\n\nAssistant: Hello.\n\nUser: All well?\n\nAssistant: Yes.\n\nUser: More?"
    )
