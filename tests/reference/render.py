"""Prompts the slow way: no template is run and none is inspected. For each family the text of a conversation is put
together by hand, and a context becomes a conversation in one plain function."""

from __future__ import annotations

from bystander.core.records import Context

SYSTEM_TURN = "<|start_header_id|>system<|end_header_id|>\n\n"
LLAMA_HEAD = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
SMOLLM_DEFAULT = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


def prompt(family: str, context: Context, user: str) -> str:
    """The prompt of that family's models under the context, as one text."""
    base = context.base or context.kind
    in_user = context.system and (
        context.text_in == "user" or (context.text_in == "auto" and family not in ("smollm2", "llama-3.2"))
    )
    says = [turn[0] for turn in context.turns] + [context.before + user + context.after]
    if in_user:
        says[0] = f"{context.system}\n\n{says[0]}"
    system = context.system if base not in ("absent", "default") and not in_user else None
    answers = [turn[1] for turn in context.turns]
    text = {"gemma-2": _gemma, "gemma-3": _gemma, "mistral-7b": _mistral, "llama-3.2": _llama, "smollm2": _chatml}[
        family
    ](system, says, answers, base == "absent")
    return text + (" " if family == "mistral-7b" and context.prefix else "") + context.prefix


def _gemma(system: str | None, says: list[str], answers: list[str], absent: bool) -> str:
    assert system is None
    past = "".join(
        f"<start_of_turn>user\n{u}<end_of_turn>\n<start_of_turn>model\n{a}<end_of_turn>\n"
        for u, a in zip(says[:-1], answers, strict=True)
    )
    return f"<bos>{past}<start_of_turn>user\n{says[-1]}<end_of_turn>\n<start_of_turn>model\n"


def _mistral(system: str | None, says: list[str], answers: list[str], absent: bool) -> str:
    assert system is None
    past = "".join(f"[INST] {u}[/INST] {a}</s>" for u, a in zip(says[:-1], answers, strict=True))
    return f"<s>{past}[INST] {says[-1]}[/INST]"


def _llama(system: str | None, says: list[str], answers: list[str], absent: bool) -> str:
    def turn(role: str, text: str) -> str:
        return f"<|start_header_id|>{role}<|end_header_id|>\n\n{text}<|eot_id|>"

    head = "" if absent else f"{SYSTEM_TURN}{LLAMA_HEAD}{system or ''}<|eot_id|>"
    past = "".join(turn("user", u) + turn("assistant", a) for u, a in zip(says[:-1], answers, strict=True))
    return f"<|begin_of_text|>{head}{past}{turn('user', says[-1])}<|start_header_id|>assistant<|end_header_id|>\n\n"


def _chatml(system: str | None, says: list[str], answers: list[str], absent: bool) -> str:
    def turn(role: str, text: str) -> str:
        return f"<|im_start|>{role}\n{text}<|im_end|>\n"

    head = "" if absent else turn("system", SMOLLM_DEFAULT if system is None else system)
    past = "".join(turn("user", u) + turn("assistant", a) for u, a in zip(says[:-1], answers, strict=True))
    return f"{head}{past}{turn('user', says[-1])}<|im_start|>assistant\n"
