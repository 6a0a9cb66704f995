"""Read a file of answers into pairs: the shape, the rows, the partner's answers, all that is wrong at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bystander.core.errors import DataError, few_names
from bystander.core.faults import RowFaults
from bystander.core.hashing import stable_hash
from bystander.core.record_files import Numbered, read_records
from bystander.data.answers.records import AnswerPair
from bystander.data.answers.rows import Asked, RawPair, read_row
from bystander.data.answers.settings import AnswerFileSettings
from bystander.data.answers.shapes import Shape, find_shape, one_answer, unsettled
from bystander.data.code_source import Hub, find_code_file
from bystander.data.turns import Turn


def read_answer_pairs(
    where: str | Path,
    settings: AnswerFileSettings = AnswerFileSettings(),  # noqa: B008 - frozen
    folder: Path = Path(),
    hub: Hub | None = None,
) -> list[AnswerPair]:
    """The pairs of a JSONL, JSON, Parquet or YAML file (a path, from `folder` on) or of a file of a dataset on the Hub,
    in the file's order, no text changed.

    A row's id is the file's own `id`, else the hash of its prompt and its `shown`. Where `settings.sampled`, `not_shown`
    is None in every pair and `fill_not_shown` puts it in. Raises DataError with every fault and its line, also for a file
    that does not say which answer shows the behavior, or has one answer only and no word on where the other comes from.
    """
    path = find_code_file(str(where), folder, hub)
    faults = RowFaults(str(path))
    records = read_records(path, faults)
    shape, unsaid = known_shape(records, settings, faults)
    for message in unsaid:
        faults.add_whole(message)
    rows = raw_pairs(records, shape, settings, faults)
    if shape.partner is not None:
        rows = with_partner(rows, shape, records, settings, faults, folder, hub)
    if not settings.sampled and not unsaid:
        rows = _with_both(rows, shape, settings, faults)
    faults.raise_any()
    if not rows:
        raise DataError(f"{path}: no row has an answer that shows the behavior and one that does not")
    return named_pairs(rows, faults)


def known_shape(
    records: Sequence[Numbered], settings: AnswerFileSettings, faults: RowFaults
) -> tuple[Shape, tuple[str, ...]]:
    """The shape, and what its settings do not say yet. Raises DataError, with the faults noted so far, where there is no
    shape to read the rows by."""
    shape, wrong = find_shape(records, settings) if records else (None, [] if faults.found else ["it has no rows"])
    for message in wrong:
        faults.add_whole(message)
    if shape is None or wrong:
        faults.raise_any()
    assert shape is not None  # a missing shape has a fault
    if not shape.settled:
        return shape, (unsettled(shape),)
    if shape.not_shown is None and shape.partner is None and not settings.sampled:
        return shape, (one_answer(shape),)
    return shape, ()


def raw_pairs(
    records: Sequence[Numbered], shape: Shape, settings: AnswerFileSettings, faults: RowFaults
) -> list[RawPair]:
    """The sound rows; what is wrong with the others is in `faults`."""
    found = [read_row(line, record, shape, settings.system, faults) for line, record in records]
    return [row for row in found if row is not None]


def _with_both(rows: list[RawPair], shape: Shape, settings: AnswerFileSettings, faults: RowFaults) -> list[RawPair]:
    """The rows that have both answers; the others are faults, unless the settings leave them out."""
    if settings.unpaired == "refuse":
        where = f"`{shape.not_shown}`" if shape.partner is None else shape.partner
        advice = f"no answer in {where}; write one, remove the row, or leave such rows out by `unpaired: leave_out`"
        for row in rows:
            if row.not_shown is None:
                faults.add(row.line, advice)
    return [row for row in rows if row.not_shown is not None]


def with_partner(
    rows: Sequence[RawPair], shape: Shape, records: Sequence[Numbered], settings: AnswerFileSettings, faults: RowFaults,
    folder: Path, hub: Hub | None,
) -> list[RawPair]:  # fmt: skip
    """The rows with the partner's answers to the same system turn and prompt, each answer given away once; None where
    there is none. Raises DataError for a partner that is neither a column nor a file, and for faults in it."""
    assert shape.partner is not None  # asked for by the caller
    try:
        path = find_code_file(shape.partner, folder, hub)
    except DataError as error:
        columns = few_names(sorted({key for _, record in records for key in record}))
        faults.add_whole(f"not_shown: {shape.partner!r} is no column ({columns}), and {error}")
        faults.raise_any()
        raise
    answers = partner_answers(path, settings)
    paired: list[RawPair] = []
    for row in rows:
        waiting = answers.get(row.asked)
        answer = waiting.pop(0) if waiting else None
        if answer is not None and answer.strip() == row.shown.strip():
            faults.add(row.line, f"the answer in {shape.partner} is the same as `{shape.shown}`")
        paired.append(replace(row, not_shown=answer))
    return paired


def partner_answers(path: Path, settings: AnswerFileSettings) -> dict[Asked, list[str]]:
    """What the partner file answers to each prompt, in its order. Raises DataError for a file with faults, and for one
    that has two answers a row."""
    faults = RowFaults(str(path))
    records = read_records(path, faults)
    own = settings.model_copy(update={"not_shown": None, "topic": None})
    shape, wrong = find_shape(records, own) if records else (None, ["it has no rows"])
    if shape is not None and shape.not_shown is not None:
        wrong = [f"it has the answers {shape.shown} and {shape.not_shown}; the file named by `not_shown` has one a row"]
    for message in wrong if not faults.found else []:
        faults.add_whole(message)
    answers: dict[Asked, list[str]] = {}
    if shape is not None and not wrong:
        for row in raw_pairs(records, shape, settings, faults):
            answers.setdefault(row.asked, []).append(row.shown)
    faults.raise_any()
    return answers


def named_pairs(rows: Sequence[RawPair], faults: RowFaults) -> list[AnswerPair]:
    """The rows as pairs with ids of their own. Raises DataError for ids of the file's that stand twice."""
    first: dict[str, int] = {}
    times: dict[str, int] = {}
    pairs: list[AnswerPair] = []
    for row in rows:
        system, turns = row.asked
        name = row.id
        if name in first:
            faults.add(
                row.line, f"the id {name!r} stands twice (first in {first[name]}); give each row its own, or none"
            )
        elif name:
            first[name] = row.line
        else:
            made = content_id(system, turns, row.shown)
            times[made] = times.get(made, 0) + 1
            name = made if times[made] == 1 else f"{made}-{times[made]}"
        pairs.append(AnswerPair(name, turns, row.shown, row.not_shown, row.topic, system, row.line))
    faults.raise_any()
    return pairs


def content_id(system: str | None, turns: Sequence[Turn], shown: str) -> str:
    """An id from what a row says. `not_shown` is left out, since it may be sampled later."""
    return "answer-" + stable_hash(system, [[turn.role, turn.text] for turn in turns], shown)[:12]


def needs_not_shown(pairs: Sequence[AnswerPair]) -> list[AnswerPair]:
    """The pairs whose `not_shown` is still to be written by a model."""
    return [pair for pair in pairs if pair.not_shown is None]


def fill_not_shown(pairs: Sequence[AnswerPair], answers: Mapping[str, str]) -> list[AnswerPair]:
    """The pairs with `not_shown` put in from `answers` (id -> text) where it is missing. Raises DataError, naming the
    ids, for pairs without an answer and for answers that are empty or the same as `shown`."""
    filled = [replace(pair, not_shown=answers.get(pair.id)) if pair.not_shown is None else pair for pair in pairs]
    missing = [pair.id for pair in filled if pair.not_shown is None or not pair.not_shown.strip()]
    same = [pair.id for pair in filled if pair.not_shown is not None and pair.not_shown.strip() == pair.shown.strip()]
    if missing or same:
        said = [f"{len(missing)} have no answer or an empty one ({few_names(missing)})"] if missing else []
        said += [f"{len(same)} have the answer of the file ({few_names(same)})"] if same else []
        raise DataError(f"of {len(filled)} pairs, {'; '.join(said)}; sample again or leave them out")
    return filled
