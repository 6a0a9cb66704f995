"""The built-in personas are those of the taxonomy, each with a prompt of its own."""

from __future__ import annotations

import csv
from itertools import groupby
from pathlib import Path
from statistics import mean

import pytest

from bystander.core.records import ASSISTANT_PROMPT, Context
from bystander.personas import SOURCES, bare_context, context_of, load_personas


def test_builtin_personas_are_those_of_the_taxonomy_in_its_order(shared_data: Path) -> None:
    with (shared_data / "reference" / "persona_taxonomy.csv").open(encoding="utf-8", newline="") as handle:
        expected = [(row["name"], row["category"], row["related_to"]) for row in csv.DictReader(handle)]
    assert len(expected) == 111
    assert [(p.name, p.category, ";".join(p.related_to)) for p in load_personas()] == expected


def test_prompts_are_distinct_short_and_in_the_second_person() -> None:
    prompts = [persona.prompt for persona in load_personas()]
    assert len({prompt.casefold() for prompt in prompts}) == 111
    assert all(20 <= len(prompt) <= 160 and prompt.startswith("You are ") for prompt in prompts)


def test_prompt_length_varies_within_a_category_and_not_between_them() -> None:
    lengths = {
        category: [len(persona.prompt) for persona in group]
        for category, group in groupby(load_personas(), key=lambda persona: persona.category)
    }
    assert len(lengths) == 11
    assert all(max(values) - min(values) > 40 for values in lengths.values())
    means = [mean(values) for values in lengths.values()]
    assert max(means) - min(means) < 10


def test_modified_sources_name_their_source() -> None:
    words = {"villain": "villain", "comedian": "comedian", "assistant": "assistant"}
    words |= {"software_engineer": "software engineer", "kindergarten_teacher": "kindergarten teacher"}
    modified = [persona for persona in load_personas() if persona.category == "modified_source"]
    assert all(words[persona.related_to[0]] in persona.prompt for persona in modified)


def test_sources_are_personas_and_the_assistant_is_word_for_word() -> None:
    by_name = {persona.name: persona for persona in load_personas()}
    assert set(SOURCES) <= set(by_name)
    assert by_name["assistant"].prompt == ASSISTANT_PROMPT


def test_the_five_contexts_are_told_apart() -> None:
    assistant = next(persona for persona in load_personas() if persona.name == "assistant")
    contexts = [bare_context("absent"), bare_context("empty"), bare_context("default"), bare_context("assistant")]
    contexts.append(context_of(assistant))
    assert len(set(contexts)) == 5
    assert [context.system for context in contexts] == [None, "", None, ASSISTANT_PROMPT, ASSISTANT_PROMPT]
    assert contexts[-1] == Context("persona", "assistant", ASSISTANT_PROMPT)


def test_a_persona_is_not_a_bare_context() -> None:
    with pytest.raises(KeyError):
        bare_context("persona")  # pyright: ignore[reportArgumentType]
