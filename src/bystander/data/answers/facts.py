"""What a file of answers is, before it is used."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bystander.core.faults import RowFaults
from bystander.core.hashing import file_sha256
from bystander.core.record_files import Numbered, read_records
from bystander.data.answers.read import known_shape, raw_pairs, with_partner
from bystander.data.answers.rows import RawPair
from bystander.data.answers.settings import AnswerFileSettings
from bystander.data.answers.shapes import Shape
from bystander.data.code_source import Hub, find_code_file
from bystander.data.lengths import CHARS_PER_TOKEN, Edges, Joined, Lengths, edges_of, lengths_of
from bystander.data.similar import SAME_TEXT, near_groups, shingles

Count = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class Repeats:
    """What stands more than once in a file of answers."""

    rows: int = 0  # rows equal to an earlier one
    prompts: int = 0  # rows whose prompt stands in an earlier one
    near_prompts: int = 0  # rows whose prompt is a near-duplicate of another row's, or equal to it
    contradicting: int = 0  # different prompts that stand with several different shown answers

    def __str__(self) -> str:
        return (
            f"{self.rows:,} rows, {self.prompts:,} prompts, {self.near_prompts:,} prompts nearly; "
            f"{self.contradicting:,} prompts have several shown answers"
        )


@dataclass(frozen=True, slots=True)
class PairFacts:
    """A file of answer pairs, or of answers of which the other half is yet to come.

    `apart`: by how much, of the longer one, the two answers of a pair differ in characters, at most. `length_ratio`: mean
    characters of the shown answers over that of the others; None where there are no pairs. `needs`: what its settings
    must say before it can be used, a sentence each.
    """

    path: str
    sha256: str
    form: str
    pairs: int  # rows; those with one answer too
    topics: Mapping[str, int]
    repeated: tuple[str, ...]  # rows with the prompt of another: their ids, else "line 7"
    apart: float
    lengths: Lengths  # of the prompts, in tokens
    answer_lengths: Lengths  # of both answers
    token_counter: str
    columns: Mapping[str, int]  # column -> rows that have it
    shown: str  # column of the answer that shows the behavior; "" where that is not known yet
    not_shown: str  # column, file or writer of the other one; "" likewise
    needs: tuple[str, ...]
    unpaired: int  # rows without the answer that does not show the behavior, where one was looked for
    systems: int  # rows with a system turn
    exchanges: Mapping[int, int]  # user turns in the prompt -> rows
    length_ratio: float | None
    repeats: Repeats
    edges: Edges  # of the answers
    prompt_edges: Edges  # of the last user turns
    joined: int | None = (
        None  # answers that are other tokens when tokenized with the prompt as one text; None: not asked
    )


def describe(
    where: str | Path,
    settings: AnswerFileSettings = AnswerFileSettings(),  # noqa: B008 - frozen
    folder: Path = Path(),
    count: Count | None = None,
    counter: str = "",
    hub: Hub | None = None,
    joined: Joined | None = None,
) -> PairFacts:
    """Facts about a file of answers of any shape that `read_answer_pairs` reads, also where its settings do not say yet
    what they must. `count` gives the tokens of a text, its name in `counter`; without it lengths are characters / 4.
    `joined` counts the answers that a model's tokenizer joins with what stands before them.
    Raises DataError for faults of single rows and for a file of no known shape."""
    path = find_code_file(str(where), folder, hub)
    faults = RowFaults(str(path))
    records = read_records(path, faults)
    shape, unsaid = known_shape(records, settings, faults)
    lenient = settings.model_copy(update={"system": "keep", "unpaired": "leave_out"})
    rows = raw_pairs(records, shape, lenient, faults)
    if shape.partner is not None:
        rows = with_partner(rows, shape, records, lenient, faults, folder, hub)
    faults.raise_any()
    missing = sum(row.not_shown is None for row in rows) if shape.not_shown or shape.partner else 0
    needs = (*unsaid, *_needs(rows, settings, missing))
    size = count or (lambda text: round(len(text) / CHARS_PER_TOKEN))
    named = counter or ("given" if count else f"characters / {CHARS_PER_TOKEN:g}")
    return _facts(path, shape, settings, records, rows, needs, missing, size, named, joined)


def _needs(rows: Sequence[RawPair], settings: AnswerFileSettings, missing: int) -> Iterator[str]:
    """What the rows ask the settings to say, and they do not."""
    if missing and settings.unpaired == "refuse":
        yield f"{missing:,} rows have no answer that does not show the behavior: `unpaired: leave_out`, or write them"
    systems = sum(row.asked[0] is not None for row in rows)
    if systems and settings.system == "refuse":
        yield f"{systems:,} rows have a system turn: `system: keep` makes it the row's own context, or remove it"


def _facts(
    path: Path, shape: Shape, settings: AnswerFileSettings, records: Sequence[Numbered], rows: Sequence[RawPair],
    needs: tuple[str, ...], missing: int, size: Count, counter: str, joined: Joined | None,
) -> PairFacts:  # fmt: skip
    answers = [text for row in rows for text in (row.shown, row.not_shown) if text is not None]
    both = [(len(row.shown), len(row.not_shown)) for row in rows if row.not_shown is not None]
    asked = Counter(row.asked for row in rows)
    one = "answers, one a row" if shape.not_shown is None and shape.partner is None else "answer pairs"
    return PairFacts(
        path=str(path),
        sha256=file_sha256(path),
        form=f"{one} ({shape})",
        pairs=len(rows),
        topics=dict(Counter(row.topic for row in rows if row.topic)),
        repeated=tuple(row.id or f"line {row.line}" for row in rows if asked[row.asked] > 1),
        apart=max((abs(a - b) / max(a, b) for a, b in both), default=0.0),
        lengths=lengths_of([size(_prompt(row)) for row in rows]),
        answer_lengths=lengths_of([size(text) for text in answers]),
        token_counter=counter,
        columns=dict(Counter(key for _, record in records for key in record)),
        shown=shape.shown if shape.settled else "",
        not_shown=_writer(shape, settings),
        needs=needs,
        unpaired=missing,
        systems=sum(row.asked[0] is not None for row in rows),
        exchanges=dict(sorted(Counter((len(row.asked[1]) + 1) // 2 for row in rows).items())),
        length_ratio=sum(a for a, _ in both) / sum(b for _, b in both) if both else None,
        repeats=_repeats(rows),
        edges=edges_of(answers),
        prompt_edges=edges_of([row.asked[1][-1].text for row in rows]),
        joined=None if joined is None else joined(answers),
    )


def _writer(shape: Shape, settings: AnswerFileSettings) -> str:
    """Where the answers come from that do not show the behavior."""
    if settings.sampled:
        return "own answers" if isinstance(settings.not_shown, str) else "a provider"
    return (shape.not_shown or shape.partner or "") if shape.settled else ""


def _repeats(rows: Sequence[RawPair]) -> Repeats:
    shown_of: defaultdict[object, set[str]] = defaultdict(set)
    for row in rows:
        shown_of[row.asked].add(row.shown)
    groups = near_groups([([shingles(_prompt(row)) for row in rows], SAME_TEXT)])
    sizes = Counter(groups)
    return Repeats(
        rows=len(rows) - len({(row.asked, row.shown, row.not_shown) for row in rows}),
        prompts=len(rows) - len(shown_of),
        near_prompts=sum(sizes[group] > 1 for group in groups),
        contradicting=sum(len(shown) > 1 for shown in shown_of.values()),
    )


def _prompt(row: RawPair) -> str:
    return "\n\n".join(turn.text for turn in row.asked[1])
