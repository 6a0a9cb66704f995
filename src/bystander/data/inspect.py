"""What a file of data is, before it is used: `bystander data inspect`. Code sets, multiple-choice sets, files of judged
questions and of answer pairs are told apart by what stands in them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from bystander.core.errors import DataError
from bystander.core.faults import RowFaults
from bystander.core.hashing import file_sha256
from bystander.core.record_files import YAML, Record, read_records
from bystander.core.yamlfile import read_text, read_yaml
from bystander.data.answers.facts import PairFacts, describe
from bystander.data.answers.settings import AnswerFileSettings
from bystander.data.answers.shapes import CONVERSATIONS, find_shape
from bystander.data.choice import ChoiceSet, describe_choice
from bystander.data.choice_rows import form_of
from bystander.data.choice_source import NAMED
from bystander.data.code_inspect import CodeSetFacts, inspect_code_set
from bystander.data.code_source import find_code_file
from bystander.data.judge_questions import load_judge_questions
from bystander.data.lengths import Joined, Lengths, lengths_of

EXPECTED = (
    "expected JSONL or Parquet with `messages`; `task`, `code_template` and `code`; `prompt`, `secure` and `insecure`; "
    "`question`, `choices` and `answerKey`; HellaSwag's columns; or a prompt with two answers (`shown` and `not_shown`, "
    "`chosen` and `rejected`, `aligned` and `misaligned`, or columns of your own that `shown:` and `not_shown:` name); or YAML with a list of judged questions (`paraphrases`, "
    "`judge_prompts`) or of answer pairs (`question`, `aligned`, `misaligned`)"
)
Count = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class JudgedFacts:
    """A file of judged questions. `answers`: what one persona is asked to write, all samples of all paraphrases."""

    path: str
    sha256: str
    form: str
    questions: int
    paraphrases: int
    answers: int
    samples: Mapping[int, int]  # samples a paraphrase -> questions
    columns: Mapping[str, int]  # key -> questions that have it
    systems: Mapping[str, int]  # system prompt of their own -> questions
    judges: Mapping[str, int]  # judge that the file names -> questions
    templates: Mapping[str, int]  # judge prompt -> different texts of it
    repeated: tuple[str, ...]  # questions with a user turn that stands twice
    lengths: Lengths  # of the paraphrases, in tokens
    token_counter: str


def inspect_data(
    source: str, count: Count, counter: str, answers: AnswerFileSettings | None = None, joined: Joined | None = None
) -> CodeSetFacts | ChoiceSet | JudgedFacts | PairFacts:
    """Facts about a named set, a file, or a file of a dataset on the Hub. `count` gives the tokens of a text, `counter`
    its name. `answers`: the file is one of answers, read with these settings. `joined` counts the answers that are other
    tokens behind a prompt than by themselves. Raises DataError for an unknown form, saying what was found and what is
    known."""
    if source in NAMED:
        return describe_choice(source)
    path = find_code_file(source, Path())
    if answers is not None:
        return describe(path.absolute(), answers, Path(), count, counter, joined=joined)
    if path.suffix in YAML:
        return _inspect_yaml(path, count, counter, joined)
    faults = RowFaults(str(path), EXPECTED)
    records = read_records(path, faults)
    if not records and not faults.found:
        faults.add_whole("it has no rows")
    if not records:
        faults.raise_any()
    first = records[0][1]
    if form_of(first):
        return describe_choice(path)
    if _is_code(first):
        return inspect_code_set(path, count, counter, joined)
    if first.keys() & set(CONVERSATIONS):
        code = _code_facts(path, count, counter, joined)
        return code or describe(path, count=count, counter=counter, joined=joined)
    if find_shape(records, AnswerFileSettings())[0] is None:
        raise DataError(f"{path} has no known form: found the columns {', '.join(sorted(first)) or 'none'}; {EXPECTED}")
    return describe(path, count=count, counter=counter, joined=joined)


def _is_code(first: Record) -> bool:
    return {"task", "code"} <= first.keys() or {"prompt", "secure"} <= first.keys()


def _code_facts(path: Path, count: Count, counter: str, joined: Joined | None) -> CodeSetFacts | None:
    """Facts about a file of conversations as a code set; None where it is none, or most of its answers are no Python."""
    try:
        facts = inspect_code_set(path, count, counter, joined)
    except DataError:
        return None  # what is wrong with it, `describe` says too: both read it alike
    return facts if 2 * facts.parsed >= facts.answers else None


def _inspect_yaml(path: Path, count: Count, counter: str, joined: Joined | None) -> JudgedFacts | PairFacts:
    try:
        parsed = read_yaml(read_text(path, "file of questions or pairs"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    if parsed.faults:
        raise DataError(f"{path}: {'; '.join(parsed.faults)}")
    rows = cast(list[Any], parsed.data) if isinstance(parsed.data, list) else []
    keys = Counter(str(key) for row in rows if isinstance(row, dict) for key in cast(dict[object, Any], row))
    if keys.keys() & {"paraphrases", "judge_prompts"}:
        return _judged(path, keys, count, counter)
    records = [(1, cast(Record, row)) for row in rows if isinstance(row, dict)]
    if records and find_shape(records, AnswerFileSettings())[0] is not None:
        return describe(path, count=count, counter=counter, joined=joined)
    found = f"a list with the keys {', '.join(keys)}" if keys else f"a {type(parsed.data).__name__}"
    raise DataError(f"{path} has no known form: found {found}; {EXPECTED}")


def _judged(path: Path, keys: Counter[str], count: Count, counter: str) -> JudgedFacts:
    questions = load_judge_questions(path)
    asked = [((question.system, text), question.id) for question in questions for text in question.paraphrases]
    times = Counter(turn for turn, _ in asked)
    names = dict.fromkeys(name for question in questions for name in question.prompts)
    return JudgedFacts(
        path=str(path),
        sha256=file_sha256(path),
        form="judged questions",
        questions=len(questions),
        paraphrases=len(asked),
        answers=sum(len(question.paraphrases) * question.samples for question in questions),
        samples=dict(sorted(Counter(question.samples for question in questions).items())),
        columns=dict(keys),
        systems=dict(Counter(question.system for question in questions if question.system is not None)),
        judges=dict(Counter(question.judge or "none" for question in questions)),
        templates={name: len({q.prompts[name] for q in questions if name in q.prompts}) for name in names},
        repeated=tuple(dict.fromkeys(name for turn, name in asked if times[turn] > 1)),
        lengths=lengths_of([count(text) for question in questions for text in question.paraphrases]),
        token_counter=counter,
    )
