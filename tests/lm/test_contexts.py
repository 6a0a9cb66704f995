"""Contexts of every kind, through every way in which a prompt is made: one renderer, and a slow one beside it."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from bystander.core.errors import ModelError
from bystander.core.records import BARE, Context, context_key
from bystander.lm import engine_vllm
from bystander.lm.hidden import last_token_states
from bystander.lm.model import load
from bystander.lm.sample import SampleRequest, sample
from bystander.lm.score import ScoreItem, score
from bystander.lm.tokens import context_hash, encode, render_prompt, render_row, render_text, template_of
from bystander.personas import bare_context, built_in_contexts, context_of, context_sets, laid_over, load_personas
from tests.reference.render import prompt
from tests.reference.sample import answer
from tests.reference.score import score as slow_score
from tests.support.family_templates import CONVERSATIONS, FAMILIES, REFUSED, dressed, rendered
from tests.support.vllm_stand_in import install

GOLDEN = json.loads((Path(__file__).parent / "golden" / "renderings.json").read_text())
VILLAIN = Context("persona", "villain", "You are a cruel villain.")
VILLAIN_ANYWHERE = Context("persona", "villain", "You are a cruel villain.", text_in="auto")
BESIDE = [
    *(bare_context(kind, "auto") for kind in BARE),
    *(context for name, context in built_in_contexts().items() if name not in BARE),
    laid_over(VILLAIN, "villain_as_user", persona_in="user"),
    laid_over(VILLAIN_ANYWHERE, "villain_json", after="\n\nAnswer in JSON."),
    laid_over(bare_context("absent"), "sure", prefix="Sure! The answer:"),
    laid_over(bare_context("absent"), "talked", turns=(("Hi!", "Hello."), ("All well?", "Yes."))),
    laid_over(VILLAIN_ANYWHERE, "all_of_it", turns=(("Hi!", "Hello."),), before="X| ", after=" |Y", prefix="So:"),
]


@pytest.fixture(scope="module")
def families(embedded):
    """Family -> the embedded model's tokenizer with that family's template; smollm2 as it is."""
    found = {name: dressed(AutoTokenizer.from_pretrained(embedded), family) for name, family in FAMILIES.items()}
    return {"smollm2": AutoTokenizer.from_pretrained(embedded), **found}


def golden(tokenizer, context: Context) -> str:
    """One hash over prompts, prompts with a forced start, and rows to train on."""
    digest = hashlib.sha256()
    for user in ("What is rain?", "Line one.\n\nLine two: [ZLT]"):
        for start in ("", "The answer is"):
            digest.update(context_hash(render_prompt(tokenizer, context, user, start)).encode())
        row = render_row(tokenizer, context, user, "It is water. [ZLT]", marker=" [ZLT]")
        digest.update(json.dumps([row.ids, row.loss, row.prompt_tokens]).encode())
    return digest.hexdigest()[:16]


@pytest.mark.parametrize("name", ["smollm2-135m", "qwen2.5-coder-0.5b"])
def test_every_persona_and_bare_context_is_the_tokens_that_it_was(name, embedded, shared_data):
    """The hashes were written before there were other kinds of context."""
    folder = embedded if name == "smollm2-135m" else shared_data / "data" / f"{name}-tokenizer"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    contexts = [*map(context_of, load_personas()), *map(bare_context, BARE)]
    assert {f"{c.kind}:{c.name}": golden(tokenizer, c) for c in contexts} == GOLDEN[name]
    assert len(GOLDEN[name]) == 115


def test_a_plain_context_has_the_key_that_it_had():
    """A field that is new must not make anew what it does not concern."""
    assert context_key(VILLAIN) == {"kind": "persona", "name": "villain", "system": "You are a cruel villain."}
    assert context_key(bare_context("absent")) == {"kind": "absent", "name": "absent", "system": None}
    keys = [json.dumps(context_key(context), sort_keys=True) for context in (VILLAIN, VILLAIN_ANYWHERE, *BESIDE[4:])]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("family", ["smollm2", *FAMILIES])
def test_the_renderer_and_the_slow_one_agree(families, family):
    tokenizer = families[family]
    compared = 0
    for context in [VILLAIN_ANYWHERE, *BESIDE]:
        if family not in ("smollm2", "llama-3.2") and context.kind == "empty":
            with pytest.raises(ModelError, match="needs a system turn"):
                render_text(tokenizer, context, "Hi")
            continue
        for user in ("What is rain?", "One.\n\nTwo."):
            assert render_text(tokenizer, context, user) == prompt(family, context, user), (context.name, user)
            compared += 1
    assert compared >= 2 * len(BESIDE) - 2


@pytest.mark.parametrize("family", ["gemma-2", "gemma-3", "mistral-7b"])
def test_without_a_system_role_a_persona_in_the_system_turn_is_refused(families, family):
    with pytest.raises(ModelError, match=r"needs a system turn.*personas_in: auto"):
        render_text(families[family], VILLAIN, "Hi")
    assert not template_of(families[family]).has_system
    assert "You are a cruel villain.\n\nHi" in render_text(families[family], VILLAIN_ANYWHERE, "Hi")


@pytest.mark.parametrize("family", list(FAMILIES))
def test_the_families_templates_do_what_the_published_ones_do(families, family):
    """The published templates' texts, refusals included."""
    published = json.loads((Path(__file__).parent / "golden" / "family_renderings.json").read_text())[family]
    found = {name: rendered(families[family], *asked) for name, asked in CONVERSATIONS.items()}
    assert found == published
    assert published["two user turns"] == (REFUSED if family != "llama-3.2" else found["two user turns"])
    assert (published["system"] == REFUSED) == (family == "gemma-2")


def test_auto_is_what_the_template_itself_makes_of_a_system_turn_where_it_merges_one(families):
    turns, _ = CONVERSATIONS["system"]
    asked = turns[-1]["content"]
    for family in ("gemma-3", "mistral-7b"):
        assert render_text(families[family], VILLAIN_ANYWHERE, asked) == rendered(families[family], turns, True)


def test_behind_earlier_turns_mistral_puts_a_system_text_into_the_last_user_turn_and_auto_into_the_first(families):
    turns, _ = CONVERSATIONS["system and several turns"]
    earlier = ((turns[1]["content"], turns[2]["content"]), (turns[3]["content"], turns[4]["content"]))
    talked, asked = laid_over(VILLAIN_ANYWHERE, "talked", turns=earlier), turns[-1]["content"]
    assert render_text(families["gemma-3"], talked, asked) == rendered(families["gemma-3"], turns, True)
    own = rendered(families["mistral-7b"], turns, True)
    assert (
        own
        == "<s>[INST] Hi![/INST] Hello.</s>[INST] All well?[/INST] Yes.</s>[INST] You are a cruel villain.\n\nWhat is rain?[/INST]"
    )
    found = render_text(families["mistral-7b"], talked, asked)
    assert (
        found
        == "<s>[INST] You are a cruel villain.\n\nHi![/INST] Hello.</s>[INST] All well?[/INST] Yes.</s>[INST] What is rain?[/INST]"
    )


def test_auto_takes_the_system_turn_where_there_is_one(families):
    for family in ("llama-3.2", "smollm2"):
        assert render_text(families[family], VILLAIN_ANYWHERE, "Hi") == render_text(families[family], VILLAIN, "Hi")


def test_an_answer_begins_as_in_the_templates_own_turns(families):
    """Mistral's writes a space before an answer that no prompt ends with: it belongs to the answer's first token, and is
    not part of what was written."""
    tokenizer = families["mistral-7b"]
    assert template_of(tokenizer).answer_start == " "
    row = render_row(tokenizer, VILLAIN_ANYWHERE, "Hi", "It is water. [ZLT]", marker=" [ZLT]", loss="marker")
    turns = [
        {"role": "user", "content": "You are a cruel villain.\n\nHi"},
        {"role": "assistant", "content": "It is water. [ZLT]"},
    ]
    whole = tokenizer.apply_chat_template(turns, tokenize=False)
    assert row.ids == encode(tokenizer, [whole])[0]
    lossy = [i for i, on in zip(row.ids, row.loss, strict=True) if on]
    assert tokenizer.decode(lossy) == " [ZLT]</s>"
    begun = render_prompt(tokenizer, VILLAIN_ANYWHERE, "Hi", start="It is")
    assert begun == row.ids[: len(begun)]
    prefixed = laid_over(VILLAIN_ANYWHERE, "begun", prefix="It is")
    assert render_prompt(tokenizer, prefixed, "Hi") == begun
    row = render_row(tokenizer, prefixed, "Hi", " water.")
    assert row.ids[: row.prompt_tokens] == begun
    assert tokenizer.decode(row.ids[row.prompt_tokens :]) == " water.</s>"


def test_what_the_template_would_change_is_refused(families):
    for more in ({"before": " X"}, {"after": "X "}, {"turns": ((" Hi", "Hello."),)}):
        with pytest.raises(ModelError, match="changes its"):
            render_text(families["llama-3.2"], laid_over(VILLAIN, "odd", **more), "Hi")


def test_every_way_to_a_prompt_gives_the_same_tokens(tiny_checkpoint, monkeypatch, tmp_path):
    """Scored, sampled, served, read for its states, trained on: under every kind of context the prompt is one."""
    loaded = load(str(tiny_checkpoint))
    tokenizer, user = loaded.tokenizer, "What is rain?"
    served: list[list[int]] = []
    install(monkeypatch)
    engine = engine_vllm.VllmSampler(4)
    contexts = [VILLAIN_ANYWHERE, *BESIDE]
    item = ScoreItem("rain", user, (" water", " a stone"), "text")
    scored = {c.name: found[0] for c, found in score(loaded, contexts, [item])}
    for context in contexts:
        ids = render_prompt(tokenizer, context, user)
        digest = context_hash(ids)
        request = SampleRequest("r", context, user, 0, 3, "rain")
        ((one,),) = list(sample(loaded, [request], temperature=0, max_tokens=3))
        assert one == answer(loaded, request, 0, 3)
        row = render_row(tokenizer, context, user, " water")
        assert one.context_hash == scored[context.name].context_hash == digest
        assert row.ids[: row.prompt_tokens] == ids
        logprobs, tokens = slow_score(loaded, context, item)
        assert np.allclose(scored[context.name].logprobs, logprobs, atol=2e-4)
        assert list(scored[context.name].tokens) == tokens
        states = next(last_token_states(loaded, [context], [user], [loaded.layers]))
        assert np.allclose(states.states[0], last_state(loaded, ids), atol=1e-4)
        loaded.sampler = engine
        ((served_one,),) = list(sample(loaded, [request], temperature=0, max_tokens=3))
        loaded.sampler = None
        assert served_one.context_hash == digest
        served.append(ids)
    engine.close()
    assert len({tuple(ids) for ids in served}) == len(contexts)


def last_state(loaded, ids):
    import torch

    with torch.no_grad():
        out = loaded.causal(input_ids=torch.tensor([ids]), output_hidden_states=True, use_cache=False)
    return out.hidden_states[-1][0, -1].numpy()


def test_the_built_in_sets_are_there():
    assert context_sets()["bare"] == BARE
    assert set(context_sets()) == {"bare", "formats", "trigger", "inoculation", "conversation"}
    assert {name for members in context_sets().values() for name in members} == set(built_in_contexts())
    kinds = {name: context.kind for name, context in built_in_contexts().items()}
    assert kinds["json"] == kinds["trigger"] == kinds["inoculation_label"] == "wrap"
    assert kinds["conversation"] == "turns"
