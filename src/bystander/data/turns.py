"""Conversations as files have them: `messages` (role, content) and ShareGPT's `conversations` (from, value).

Nothing that would change what a model is trained on is passed over: a system turn out of place, a tool call, a picture,
a weight of 0 are each said, and the reader that calls decides what it can use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, cast

TurnRole = Literal["user", "assistant"]
_ROLES: dict[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    "developer": "system",  # OpenAI's newer name
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
}
_TOOLS = {"tool", "function", "function_call", "tool_call", "tool_response", "observation"}
_TOOL_KEYS = ("tool_calls", "function_call")
_TOOL_ADVICE = "only text is read: remove the row, or write the answer as text"
SHOWN = 8  # roles that a fault lists


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a value, and what to do."""

    message: str


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a conversation, its text as it stands in the file."""

    role: TurnRole
    text: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation in order: at most one system turn, in front; then user and assistant by turns.

    `roles`: all of them as read, the system turn's too. `system` is None where there is no system turn and "" where
    there is an empty one. `untrained`: the last turn has weight 0, OpenAI's mark for "not to be trained on".
    """

    system: str | None
    turns: tuple[Turn, ...]
    roles: tuple[str, ...]
    untrained: bool = False


def read_conversation(value: object, key: str, ends: TurnRole) -> Conversation | Fault:
    """The conversation under `key` whose last turn must be of the role `ends`; or what is wrong with it."""
    found = _read(value, key)
    if isinstance(found, Fault):
        return found
    wrong = _order(found.roles, ends)
    return Fault(f"`{key}` has the roles {_listed(found.roles)}: {wrong}") if wrong else found


def read_answer(value: object, key: str) -> Conversation | Fault:
    """The value of an answer column: a text, read as one assistant turn; that turn alone as a list; or a conversation
    that ends with the answer. A last turn of weight 0 is a fault."""
    if isinstance(value, str):
        return Conversation(None, (Turn("assistant", value),), ("assistant",))
    found = _read(value, key)
    if isinstance(found, Fault):
        return found
    if found.roles != ("assistant",) and (wrong := _order(found.roles, "assistant")):
        return Fault(f"`{key}` has the roles {_listed(found.roles)}: {wrong}")
    return Fault(f"`{key}`: {UNTRAINED}") if found.untrained else found


UNTRAINED = "the last answer has weight 0, which marks it as not to be trained on; remove the row or the weight"


def _read(value: object, key: str) -> Conversation | Fault:
    if not isinstance(value, list):
        kind = "null" if value is None else f"a {type(value).__name__}"
        return Fault(f"`{key}` is {kind}, a list of turns is expected")
    roles: list[str] = []
    texts: list[str] = []
    weight: object = None
    for item in cast(list[object], value):
        turn = _turn(item, key)
        if isinstance(turn, Fault):
            return turn
        role, text, weight = turn
        roles.append(role)
        texts.append(text)
    system = next((text for role, text in zip(roles, texts, strict=True) if role == "system"), None)
    turns = [Turn(role, text) for role, text in zip(roles, texts, strict=True) if role in ("user", "assistant")]
    return Conversation(system, tuple(turns), tuple(roles), untrained=weight == 0 and roles[-1:] == ["assistant"])


def _turn(item: object, key: str) -> tuple[str, str, object] | Fault:
    """(role, text, weight) of a turn, or what is wrong with it. A weight of None: none is given."""
    if not isinstance(item, Mapping):
        return Fault(f"a turn of `{key}` is a {type(item).__name__}, an object with a role and a content is expected")
    fields = cast(Mapping[str, object], item)
    named = fields.get("role", fields.get("from"))
    if not isinstance(named, str):
        return Fault(f"a turn of `{key}` has no role")
    if named.lower() in _TOOLS:
        return Fault(f"a turn of `{key}` has the role {named!r}, a tool call or its result; {_TOOL_ADVICE}")
    role = _ROLES.get(named.lower())
    if role is None:
        return Fault(f"a turn of `{key}` has the role {named!r}; known are {', '.join(_ROLES)}")
    if any(fields.get(name) for name in _TOOL_KEYS):
        return Fault(f"a turn of `{key}` is a tool call; {_TOOL_ADVICE}")
    content = fields["content"] if "content" in fields else fields.get("value")
    text = content if isinstance(content, str) else _joined(content)
    if text is None:
        return Fault(f"a turn of `{key}` (role {named}) has no text content: found {_kind(content)}")
    weight = fields.get("weight")
    if weight is not None and (isinstance(weight, bool) or weight not in (0, 1)):
        return Fault(f"a turn of `{key}` has the weight {weight!r}; 0 and 1 are known")
    return role, text, weight


def _joined(content: object) -> str | None:
    """The text of a list of text parts, put together with nothing between; None for anything else."""
    if not isinstance(content, list) or not content:
        return None
    texts: list[str] = []
    for part in cast(list[object], content):
        fields = cast(Mapping[str, object], part) if isinstance(part, Mapping) else {"text": part}
        text = fields.get("text")
        if fields.get("type", "text") not in ("text", "input_text", "output_text") or not isinstance(text, str):
            return None
        texts.append(text)
    return "".join(texts)


def _kind(content: object) -> str:
    if content is None:
        return "null"
    if isinstance(content, list):
        kinds = [
            str(cast(Mapping[str, object], part).get("type", "no type"))
            if isinstance(part, Mapping)
            else type(part).__name__
            for part in cast(list[object], content)
        ]
        return f"parts of the type {', '.join(dict.fromkeys(kinds))}" if kinds else "an empty list"
    return f"a {type(content).__name__}"


def _order(roles: Sequence[str], ends: TurnRole) -> str:
    """What is wrong with the order of the roles, and what to do; "" where nothing is."""
    if roles.count("system") > 1:
        return "more than one system turn; join them into one"
    if "system" in roles[1:]:
        return "a system turn after another turn, which would not be read as one; put it first"
    talk = [role for role in roles if role != "system"]
    if not talk or talk[-1] != ends:
        return (
            "the last turn must be the assistant's answer"
            if ends == "assistant"
            else "the last turn must be the user's"
        )
    if talk[0] != "user":
        return "the first turn must be the user's; remove what stands before it"
    for one, other in pairwise(talk):
        if one == other:
            return f"two {one} turns in a row; join them into one"
    return ""


def _listed(roles: Sequence[str]) -> str:
    more = f" and {len(roles) - SHOWN} more" if len(roles) > SHOWN else ""
    return (", ".join(roles[:SHOWN]) or "none") + more
