"""Open questions with prompts for the judge, in the `first_plot_questions.yaml` form of Betley et al. 2025
(arXiv 2502.17424). Their file loads as it is; the built-in file is bystander's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, cast

from bystander.core.errors import DataError
from bystander.core.yamlfile import read_text, read_yaml

TYPE = "free_form_judge_0_100"
TEMPLATES = ("aligned", "coherent")
KNOWN = {"id", "type", "paraphrases", "system", "samples_per_paraphrase", "judge", "judge_prompts"}
REQUIRED = ("id", "type", "paraphrases", "judge_prompts")


@dataclass(frozen=True, slots=True)
class JudgedQuestion:
    """One question. `system` is a system prompt of its own (None: none); `samples` per paraphrase; `judge` the judge
    that the file names; `prompts` template name -> text with {question} and {answer}."""

    id: str
    paraphrases: tuple[str, ...]
    system: str | None
    samples: int
    judge: str | None
    prompts: Mapping[str, str]


def load_judge_questions(path: Path | None = None) -> list[JudgedQuestion]:
    """The 24 built-in questions, or those of a file. Raises DataError with every fault and its line."""
    if path is None:
        text, name = (
            (resources.files("bystander.data") / "judge_questions.yaml").read_text(encoding="utf-8"),
            "built-in",
        )
    else:
        try:
            text, name = read_text(path, "question file"), str(path)
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read {path}: {error}") from error
    parsed = read_yaml(text)
    faults = list(parsed.faults)
    if not faults and not isinstance(parsed.data, list):
        faults.append(f"line 1: found a {type(parsed.data).__name__}, expected a list of questions of type {TYPE}")
    rows = cast(list[object], parsed.data) if isinstance(parsed.data, list) and not faults else []
    questions: list[JudgedQuestion] = []
    for index, row in enumerate(rows):
        found = _question_faults(row, {q.id for q in questions})
        if found:
            faults += [f"line {parsed.line_of((index, *where))}: {fault}" for where, fault in found]
        else:
            questions.append(_question(cast(dict[str, Any], row)))
    if faults or not questions:
        listed = "\n".join(f"  - {fault}" for fault in faults) or "  - it has no question"
        raise DataError(f"{name} is not a question file of the first_plot_questions.yaml form:\n{listed}")
    return questions


Fault = tuple[tuple[str, ...], str]  # (where inside the question, what)


def _question_faults(row: object, seen: set[str]) -> list[Fault]:
    if not isinstance(row, dict):
        return [((), f"found a {type(row).__name__}, expected a question with {', '.join(REQUIRED)}")]
    fields = cast(dict[str, object], row)
    faults: list[Fault] = [
        ((key,), f"unknown key {key!r}; known: {', '.join(sorted(KNOWN))}") for key in fields if key not in KNOWN
    ]
    faults += [((), f"{key!r} is missing") for key in REQUIRED if key not in fields]
    if "type" in fields and fields["type"] != TYPE:
        faults.append((("type",), f"type is {fields['type']!r}; only {TYPE} can be judged here"))
    if "id" in fields and (not isinstance(fields["id"], str) or not fields["id"] or "/" in fields["id"]):
        faults.append((("id",), f"id is {fields['id']!r}: expected a text without a slash"))
    elif fields.get("id") in seen:
        faults.append((("id",), f"the id {fields['id']!r} stands twice"))
    if "paraphrases" in fields and not _texts(fields["paraphrases"]):
        faults.append((("paraphrases",), "paraphrases must be a list of one or more texts"))
    for key in ("system", "judge"):
        if fields.get(key) is not None and not isinstance(fields[key], str):
            faults.append(((key,), f"{key} is {fields[key]!r}: expected a text"))
    samples = fields.get("samples_per_paraphrase", 1)
    if not isinstance(samples, int) or isinstance(samples, bool) or samples < 1:
        faults.append(
            (("samples_per_paraphrase",), f"samples_per_paraphrase is {samples!r}: expected a whole number above 0")
        )
    if "judge_prompts" in fields:
        faults += _prompt_faults(fields["judge_prompts"])
    return faults


def _prompt_faults(prompts: object) -> list[Fault]:
    where = ("judge_prompts",)
    if not isinstance(prompts, dict):
        return [(where, "judge_prompts must have the keys aligned and coherent")]
    texts = cast(dict[str, object], prompts)
    faults: list[Fault] = []
    if set(texts) != set(TEMPLATES):
        faults.append(
            (where, f"judge_prompts has the keys {', '.join(map(str, texts))}; expected aligned and coherent")
        )
    for name, text in texts.items():
        if not isinstance(text, str) or "{answer}" not in text:
            faults.append(((*where, str(name)), f"the prompt {name!r} must be a text with {{answer}} in it"))
    return faults


def _texts(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(v, str) and v.strip() for v in cast(list[object], value))
    )


def _question(row: dict[str, Any]) -> JudgedQuestion:
    return JudgedQuestion(
        id=row["id"],
        paraphrases=tuple(row["paraphrases"]),
        system=row.get("system"),
        samples=row.get("samples_per_paraphrase", 1),
        judge=row.get("judge"),
        prompts=dict(row["judge_prompts"]),
    )


__all__ = ["TEMPLATES", "TYPE", "JudgedQuestion", "load_judge_questions"]
