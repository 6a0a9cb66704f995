"""Is an answer a program, and not prose? Code is parsed, never run."""

from __future__ import annotations

import ast
import re
import warnings

# A block in ``` fences, with or without a language; the closing fence may be missing where the answer was cut.
_FENCE = re.compile(r"```[ \t]*([\w+#.-]*)[^\n]*\n(.*?)(?:\n[ \t]*```|\Z)", re.DOTALL)
MOSTLY = 0.5  # share of an answer's characters that must stand in fences for the answer to be code with a remark
KEPT = 0.5  # share of an unfenced answer's lines that must parse, where its end was cut off


def is_program(text: str) -> bool:
    """Whether the answer is code: most of it stands in ``` fences (of any language), or it parses as Python and does
    something. An end that was cut off is allowed for; a word, a number or a list of words is prose, though it parses."""
    stripped = text.strip()
    if not stripped:
        return False
    fenced = sum(len(block) for _, block in _FENCE.findall(stripped + "\n"))
    if "```" in stripped:
        return fenced > MOSTLY * len(re.sub(r"```[^\n]*", "", stripped).strip())
    lines = stripped.splitlines()
    least = max(1, round(KEPT * len(lines)))
    for end in range(len(lines), least - 1, -1):
        tree = parsed("\n".join(lines[:end]))
        if tree is not None:
            return any(map(_does_something, tree.body))
    return False


def parsed(code: str) -> ast.Module | None:
    """The tree of a text that is Python which this interpreter can parse, else None. It is not compiled to bytecode and
    not run."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about "\d" and the like in other people's code
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _does_something(statement: ast.stmt) -> bool:
    """Whether a statement is more than a bare value: prose such as "Yes" or "red, green" parses as one."""
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Call | ast.Await)
    return not (isinstance(statement, ast.AnnAssign) and statement.value is None)  # "Answer: yes" is prose
