"""What a model's own chat template does.

Templates differ in ways that have sunk studies: some put in a system turn of their own, some merge the system text
into the user turn, some trim. What a template does is found out once, with sentinels, and a context that cannot be
rendered as its name says is an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from bystander.core.errors import ModelError
from bystander.core.records import Message

# What templates let a caller decide. Without these, Qwen3 opens a chain of thought before the answer, and Llama 3.2
# writes today's date into every prompt, so that no two days agree (the date is the default of Llama 3.1's template).
TEMPLATE_SETTINGS: dict[str, Any] = {"enable_thinking": False, "date_string": "26 Jul 2024"}
CLOCK = datetime(2024, 7, 26)  # what a template reads that asks for the time: the same at every call
CLOCK_FIELDS = "aAbBcdDeFhHIjmMnprRStTuUVwWxXyYzZ"  # of strftime, each also with a `-` before it
RENDERINGS = 8  # of one prompt, which must be one text
SYSTEM_SENTINEL = "Zqsystemqz"  # no template holds these, and none changes them by trimming or capitalizing
USER_SENTINEL = "Zquserqz"
ANSWER_SENTINEL = "Zqanswerqz"


class Tokenizer(Protocol):
    """What this module needs of a transformers tokenizer; `PreTrainedTokenizerFast` has it all."""

    @property
    def is_fast(self) -> bool: ...
    @property
    def added_tokens_decoder(self) -> Mapping[int, Any]: ...

    chat_template: Any
    bos_token: Any
    eos_token: Any
    eos_token_id: Any

    def apply_chat_template(self, conversation: Any, **kwargs: Any) -> Any: ...
    def get_chat_template(self, chat_template: Any = None, tools: Any = None) -> str: ...
    def decode(self, token_ids: Any, **kwargs: Any) -> Any: ...
    def __call__(self, text: Any, **kwargs: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class Template:
    """What a chat template does, found out with sentinels.

    `injected`: what it writes before the user turn when no system turn is given; `kept`: the part of that which is no
    turn (a BOS token); None where the two cannot be told apart, with the reason in `fault`. `system_fault` says why
    there is no system turn of its own, "" where there is one. `empty_fault` likewise for a system turn without text.
    `prompt_end`: what it writes behind the user turn, up to where the answer begins. `answer_start`: white space that it
    writes before an answer and not at the end of the prompt (Mistral's; it is a part of the answer's first token).
    `answer_end`: what it writes after an answer. `trims_user`: it takes the white space off the ends of a user turn.
    """

    injected: str
    kept: str | None
    fault: str
    system_fault: str
    empty_fault: str
    prompt_end: str
    answer_start: str
    answer_end: str
    trims_user: bool

    @property
    def has_system(self) -> bool:
        """Whether it has a system turn of its own."""
        return not self.system_fault


_templates: dict[tuple[str, str], Template] = {}


def template_of(tokenizer: Tokenizer) -> Template:
    """What the tokenizer's chat template does (remembered). Raises ModelError where there is none or it has no form
    that a prompt can be cut from."""
    if not tokenizer.chat_template:
        raise ModelError("the tokenizer has no chat template: this is no instruct model. Use one that has a template.")
    key = (repr(tokenizer.chat_template), str(tokenizer.bos_token))
    if key not in _templates:
        _templates[key] = _inspect(tokenizer)
    return _templates[key]


def turn(role: str, content: str) -> Message:
    """One turn of a conversation, as templates read it."""
    return {"role": role, "content": content}


def conversations_as_text(
    tokenizer: Tokenizer, conversations: Sequence[Sequence[Message]], *, prompt: bool = True
) -> list[str]:
    """Conversations through the template; what it raises comes through."""
    return list(
        tokenizer.apply_chat_template(
            [list(messages) for messages in conversations], tokenize=False, add_generation_prompt=prompt,
            chat_template=_frozen(tokenizer.get_chat_template()), **TEMPLATE_SETTINGS,
        )
    )  # fmt: skip


def _frozen(template: str) -> str:
    """The template, with a clock that stands still if it reads one: a prompt is then the same at every call.

    A macro of that name hides the function that transformers gives to templates, which takes no other one."""
    if "strftime_now" not in template:
        return template
    codes = [f"%{flag}{field}" for flag in "-" for field in CLOCK_FIELDS] + [f"%{field}" for field in CLOCK_FIELDS]
    replaced = "".join(f"|replace({code!r},{CLOCK.strftime(code)!r})" for code in codes)
    return "{%- macro strftime_now(format) %}{{ format" + replaced + " }}{% endmacro +%}" + template


def _try(tokenizer: Tokenizer, messages: Sequence[Message], *, prompt: bool = True) -> tuple[str, str]:
    """The rendered text, or "" and what the template raised (templates refuse with an error of jinja's)."""
    try:
        return conversations_as_text(tokenizer, [messages], prompt=prompt)[0], ""
    except Exception as error:  # a template is a program of somebody else: it may raise anything
        return "", str(error) or type(error).__name__


def _inspect(tokenizer: Tokenizer) -> Template:
    user = turn("user", USER_SENTINEL)
    bare, refused = _try(tokenizer, [user])
    if refused or USER_SENTINEL not in bare:
        raise ModelError(f"the chat template does not render a lone user turn ({refused or 'the text is left out'}).")
    if {_try(tokenizer, [user])[0] for _ in range(RENDERINGS)} != {bare}:
        raise ModelError(
            "the chat template renders one prompt differently from call to call: it has chance in it. Use another."
        )
    injected, kept, fault = _injected(tokenizer, bare)
    answer_start, answer_end = _around_answer(tokenizer, bare)
    return Template(
        injected=injected,
        kept=kept,
        fault=fault,
        system_fault=_system_fault(tokenizer, bare),
        empty_fault=_empty_fault(tokenizer),
        prompt_end=bare.rpartition(USER_SENTINEL)[2],
        answer_start=answer_start,
        answer_end=answer_end,
        trims_user=f" {USER_SENTINEL} " not in _try(tokenizer, [turn("user", f" {USER_SENTINEL} ")])[0],
    )


def _injected(tokenizer: Tokenizer, bare: str) -> tuple[str, str | None, str]:
    """(what the template injects, what of it stays in `absent`, why it is not known).

    The system block S = template([system]) is a prefix of template([system, user]); what follows is the user part U,
    and template([user]) = injected + U. If `injected` is how S begins, it is a mere preamble (a BOS, or nothing) and
    stays; else the template put in a system turn of its own, of which only a BOS stays.
    """
    parts = _system_block(tokenizer)
    if parts is not None and bare.endswith(parts[1]):
        block, user_part = parts
        injected = bare[: len(bare) - len(user_part)]
        if block.startswith(injected):
            return injected, injected, ""
        bos = str(tokenizer.bos_token or "")
        # In ChatML the "BOS" may be the token that opens every turn: then it belongs to the system turn.
        own = bool(bos) and injected.startswith(bos) and block.startswith(bos) and not user_part.startswith(bos)
        return injected, bos if own else "", ""
    head = _before_user(bare)
    if "system" in head.lower():
        return "", None, "it refuses a lone system turn and writes a system turn of its own"
    both, refused = _try(tokenizer, [turn("system", SYSTEM_SENTINEL), turn("user", USER_SENTINEL)])
    if refused or SYSTEM_SENTINEL not in both:
        return "", "", ""  # no system role at all, and nothing that looks like a system turn: nothing is injected
    if _common_prefix(head, _before_user(both)) + _user_opening(bare, both) >= len(head):
        return "", "", ""
    return "", None, "it writes text of its own before the user turn that cannot be told from a system turn"


def _system_block(tokenizer: Tokenizer) -> tuple[str, str] | None:
    """(system block, user part) of template([system, user]), where the template renders a lone system turn."""
    system, user = turn("system", SYSTEM_SENTINEL), turn("user", USER_SENTINEL)
    block, refused_block = _try(tokenizer, [system], prompt=False)
    both, refused_both = _try(tokenizer, [system, user])
    if refused_block or refused_both or SYSTEM_SENTINEL not in block or not both.startswith(block):
        return None
    user_part = both[len(block) :]
    return (block, user_part) if _before_user(user_part).strip() else None


def _before_user(text: str) -> str:
    return text.split(USER_SENTINEL, maxsplit=1)[0]


def _common_prefix(a: str, b: str) -> int:
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))


def _user_opening(bare: str, both: str) -> int:
    """Length of what stands right before the user text both with and without a system turn: how a user turn opens."""
    return _common_prefix(_before_user(bare)[::-1], _before_user(both)[::-1])


def _system_fault(tokenizer: Tokenizer, bare: str) -> str:
    both, refused = _try(tokenizer, [turn("system", SYSTEM_SENTINEL), turn("user", USER_SENTINEL)])
    if refused:
        return f"it refuses a system turn ({refused})"
    if SYSTEM_SENTINEL not in both:
        return "it leaves out the system turn"
    opening = _before_user(both)[-_user_opening(bare, both) :] if _user_opening(bare, both) else ""
    if not opening.strip() or SYSTEM_SENTINEL in opening:
        return "it has no system role: it merges the system text into the user turn"
    return ""


def _empty_fault(tokenizer: Tokenizer) -> str:
    user = turn("user", USER_SENTINEL)
    filled, refused = _try(tokenizer, [turn("system", SYSTEM_SENTINEL), user])
    empty, refused_empty = _try(tokenizer, [turn("system", ""), user])
    if refused or refused_empty:
        return refused or refused_empty
    return "" if empty == filled.replace(SYSTEM_SENTINEL, "") else "it leaves out a system turn that has no text"


def _around_answer(tokenizer: Tokenizer, bare: str) -> tuple[str, str]:
    """What the template writes before an answer (white space alone) and behind it."""
    whole, refused = _try(tokenizer, [turn("user", USER_SENTINEL), turn("assistant", ANSWER_SENTINEL)], prompt=False)
    start, found, end = whole[len(bare) :].partition(ANSWER_SENTINEL)
    if refused or not whole.startswith(bare) or not found or start.strip():
        raise ModelError(
            "the chat template's generation prompt is not how its assistant turns begin "
            f"({refused or repr(whole[len(bare) - 20 : len(bare) + 40])}): answers cannot be trained and scored alike."
        )
    return start, end
