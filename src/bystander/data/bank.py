"""What ships with bystander: the bank of science questions, and the open questions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from bystander.core.errors import DataError
from bystander.core.records import NOTHING_EARLIER, Earlier, Question
from bystander.data.choice import load_choice

OPEN = Path(__file__).with_name("open.yaml")


@dataclass(frozen=True, slots=True)
class OpenQuestion:
    """A question without a right answer. `earlier`: what it brings of its own conversation."""

    id: str
    text: str
    earlier: Earlier = NOTHING_EARLIER

    @property
    def asked_text(self) -> str:
        """The earlier turns and the question in one text, to compare questions by."""
        return "\n\n".join([*(part for turn in self.earlier.turns for part in turn), self.text])


def load_bank() -> list[Question]:
    """The 256 built-in grade-school science questions: four choices each, the right one at each position 64 times.

    They are original to this project. Their order mixes the topics, so that the first n are a fair sample.
    """
    return load_choice("bank")


def load_open_questions(path: Path | None = None) -> list[OpenQuestion]:
    """The 40 built-in open questions in a fixed order, or those of a YAML file in the form of open.yaml.

    Raises DataError for a file that cannot be read, is not YAML, has another form, or repeats an id or a text.
    """
    import yaml  # here, so that the split of a question set needs nothing but the standard library and numpy

    path = OPEN if path is None else Path(path)
    try:
        loaded: object = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read the open questions {path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"the open questions {path} are not YAML: {error}") from error
    entries = cast("dict[str, object]", loaded).get("questions") if isinstance(loaded, dict) else None
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{path} has no list `questions` of entries with id and text; see the built-in open.yaml")
    return _checked(path, cast("list[object]", entries))


def _checked(path: Path, entries: list[object]) -> list[OpenQuestion]:
    questions: list[OpenQuestion] = []
    seen: set[str] = set()
    for number, entry in enumerate(entries, start=1):
        fields = cast("dict[str, object]", entry) if isinstance(entry, dict) else {}
        name, text = fields.get("id"), fields.get("text")
        if set(fields) != {"id", "text"} or not isinstance(name, str) or not isinstance(text, str) or not text.strip():
            raise DataError(f"{path}: question {number} must have an id and a text and nothing else, not {entry!r}")
        if name in seen or text in seen:
            raise DataError(f"{path}: question {number} repeats an id or a text: {name!r}, {text!r}")
        seen |= {name, text}
        questions.append(OpenQuestion(name, text))
    return questions
