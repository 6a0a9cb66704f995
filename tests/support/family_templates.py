"""What the chat templates of four families of models do with a conversation of texts.

The templates are written anew, without tools and images, which nothing here uses. `golden/family_renderings.json` has what
the published ones (google/gemma-2-2b-it, google/gemma-3-4b-it, mistralai/Mistral-7B-Instruct-v0.3,
meta-llama/Llama-3.2-3B-Instruct) make of `CONVERSATIONS`, refusals too, and a test holds these to it."""

from __future__ import annotations

from dataclasses import dataclass

from jinja2 import TemplateError

Turns = list[dict[str, str]]
REFUSED = "(refused)"

# google/gemma-2-*-it: refuses a system turn, wants turns in alternation, trims them.
GEMMA_2 = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ m['content'] | trim }}<end_of_turn>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
# google/gemma-3-*-it: puts the system text, untrimmed, and a blank line at the head of the first user turn.
GEMMA_3 = (
    "{{ bos_token }}"
    "{% set has_system = messages[0]['role'] == 'system' %}"
    "{% set head = messages[0]['content'] + '\n\n' if has_system else '' %}"
    "{% for m in (messages[1:] if has_system else messages) %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ head if loop.first else '' }}{{ m['content'] | trim }}<end_of_turn>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
# mistralai/Mistral-7B-Instruct-v0.3: no generation prompt; the system text goes into the last turn, if that is the
# user's; an answer begins with a space that no prompt ends with, and is trimmed.
MISTRAL_7B = (
    "{% set has_system = messages[0]['role'] == 'system' %}"
    "{% set turns = messages[1:] if has_system else messages %}"
    "{{ bos_token }}"
    "{% for m in turns %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}"
    "{% if m['role'] == 'user' %}"
    "[INST] {{ messages[0]['content'] + '\n\n' if loop.last and has_system else '' }}{{ m['content'] }}[/INST]"
    "{% else %}{{ ' ' + m['content'] | trim + eos_token }}{% endif %}"
    "{% endfor %}"
)
# meta-llama/Llama-3.2-*-Instruct: a system turn in any case, with the day that it is asked on; all contents trimmed.
LLAMA_3_2 = (
    "{{ bos_token }}"
    "{% if date_string is not defined %}"
    "{% if strftime_now is defined %}{% set date_string = strftime_now('%d %b %Y') %}"
    "{% else %}{% set date_string = '26 Jul 2024' %}{% endif %}"
    "{% endif %}"
    "{% set has_system = messages[0]['role'] == 'system' %}"
    "<|start_header_id|>system<|end_header_id|>\n\n"
    "Cutting Knowledge Date: December 2023\nToday Date: {{ date_string }}\n\n"
    "{{ messages[0]['content'] | trim if has_system else '' }}<|eot_id|>"
    "{% for m in (messages[1:] if has_system else messages) %}"
    "<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n{{ m['content'] | trim }}<|eot_id|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


@dataclass(frozen=True)
class Family:
    """A family's template with its first and last token, the tokens that its template writes, and whether it has a
    system role."""

    template: str
    bos: str
    eos: str
    tokens: tuple[str, ...]
    has_system: bool


FAMILIES = {
    "gemma-2": Family(GEMMA_2, "<bos>", "<eos>", ("<start_of_turn>", "<end_of_turn>"), False),
    "gemma-3": Family(GEMMA_3, "<bos>", "<eos>", ("<start_of_turn>", "<end_of_turn>"), False),
    "mistral-7b": Family(MISTRAL_7B, "<s>", "</s>", ("[INST]", "[/INST]"), False),
    "llama-3.2": Family(
        LLAMA_3_2, "<|begin_of_text|>", "<|eot_id|>", ("<|start_header_id|>", "<|end_header_id|>"), True
    ),
}


def dressed(tokenizer, family: Family):
    """The tokenizer with the family's template and tokens."""
    tokenizer.add_special_tokens({"additional_special_tokens": [family.bos, family.eos, *family.tokens]})
    tokenizer.bos_token, tokenizer.eos_token = family.bos, family.eos
    tokenizer.chat_template = family.template
    return tokenizer


def _talk(*contents: str, first: str = "user") -> Turns:
    roles = ("user", "assistant") if first == "user" else ("assistant", "user")
    return [{"role": roles[at % 2], "content": text} for at, text in enumerate(contents)]


_SYSTEM = {"role": "system", "content": "You are a cruel villain."}
_SPACED = {"role": "system", "content": " Spaced out.\n"}
_EMPTY = {"role": "system", "content": ""}
_TALKED = _talk("Hi!", "Hello.", "All well?", "Yes.", "What is rain?")
# Name -> (turns, whether the generation prompt is asked for).
CONVERSATIONS: dict[str, tuple[Turns, bool]] = {
    "user": (_talk("What is rain?"), True),
    "user, no generation prompt": (_talk("What is rain?"), False),
    "spaces around the user's text": (_talk("  What is rain?\n"), True),
    "lines": (_talk("One.\n\nTwo: [ZLT]"), True),
    "answered": (_talk("What is rain?", "Water."), False),
    "answer with spaces": (_talk("What is rain?", "\n Water. "), False),
    "several turns": (_TALKED, True),
    "several turns with spaces": (_talk(" Hi! ", " Hello.\n", "\nMore "), True),
    "several turns, answered": ([*_TALKED, {"role": "assistant", "content": "Water."}], False),
    "system": ([_SYSTEM, *_talk("What is rain?")], True),
    "system and several turns": ([_SYSTEM, *_TALKED], True),
    "system, answered": ([_SYSTEM, *_talk("What is rain?", "Water.")], False),
    "system with spaces": ([_SPACED, *_talk("What is rain?")], True),
    "empty system": ([_EMPTY, *_talk("What is rain?")], True),
    "system alone": ([_SYSTEM], False),
    "two user turns": ([*_talk("Hi!"), *_talk("What is rain?")], True),
    "answer first": (_talk("Hello.", "What is rain?", first="assistant"), True),
}


def rendered(tokenizer, turns: Turns, prompt: bool) -> str:
    """A conversation as text, or that the template refuses it."""
    try:
        return tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=prompt, date_string="26 Jul 2024"
        )
    except TemplateError:
        return REFUSED
