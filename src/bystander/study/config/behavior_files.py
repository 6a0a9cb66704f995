"""What is wrong with the behaviors that are files: their pairs, questions, scorers and rubrics, all read beforehand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from bystander.behaviors.answers import AnswersBehavior, AnswersSettings
from bystander.behaviors.scorers import JudgeScorer
from bystander.behaviors.shipped import shipped_names
from bystander.core import doors
from bystander.core.errors import DataError
from bystander.core.yamlfile import Path_
from bystander.data.answers import Provider
from bystander.judge.cost import is_local
from bystander.judge.settings import JudgeSettings
from bystander.probe.scorers import rubric_of

Add = Callable[[Path_, str], None]
TAKEN = ("pairs", "open", "bank", "arc", "hellaswag", "trained")  # sets that measurements know by these names
REASONS_NEED = 64  # tokens in which a judge can give a reason before its verdict


def behavior_file_faults(data: Mapping[str, Any], folder: Path, add: Add) -> None:
    """Tell what is wrong with each entry of `behaviors:` that fits its schema, and with the scorers of `probes.scored`.
    `data` is the study as written, since the rest of it may not fit its own."""
    entries = data.get("behaviors")
    judge = _judge(data)
    for index, entry in enumerate(cast("list[object]", entries) if isinstance(entries, list) else []):
        settings = _settings(entry)
        if settings is not None:
            _entry(settings, ("behaviors", index), isinstance(entry, str), folder, judge, add)
    scored = _inner(data, "probes", "scored")
    own = scored.get("scorers")
    for index, scorer in enumerate(cast("list[object]", own) if isinstance(own, list) else []):
        if isinstance(scorer, dict) and cast("dict[str, object]", scorer).get("kind") == "judge":
            try:
                rubric = JudgeScorer.model_validate(scorer)
            except ValidationError:
                continue  # the schema tells
            _rubric(rubric, ("probes", "scored", "scorers", index), folder, judge, add)


def _settings(entry: object) -> AnswersSettings | None:
    """The settings of an entry that means a file; None for a name behind the door, and where the schema finds a fault."""
    if isinstance(entry, str):
        ships = entry in shipped_names() and entry not in doors.names("behavior")
        return AnswersSettings(name=entry) if ships else None
    try:
        return AnswersSettings.model_validate(entry)
    except ValidationError:
        return None


def _entry(
    settings: AnswersSettings, where: Path_, named: bool, folder: Path, judge: JudgeSettings | None, add: Add
) -> None:
    name = settings.name
    if name in doors.names("behavior") or name in TAKEN:
        what = "a built-in behavior" if name in doors.names("behavior") else "a built-in set of items"
        add((*where, "name"), f"{name!r} is the name of {what}; give the file's behavior another")
    behavior = AnswersBehavior(settings, folder)
    place: Path_ = where if named or settings.file is None else (*where, "file")
    try:
        behavior.halves()
    except DataError as error:
        add(place, f"behavior {name!r}: {error}")
    if settings.questions is not None:
        try:
            behavior.open_questions()
        except DataError as error:
            add((*where, "questions"), f"behavior {name!r}: {error}")
    writer = settings.not_shown
    if isinstance(writer, Provider) and writer.dollars is None and not is_local(writer.base_url):
        add(
            (*where, "not_shown"),
            f"{writer.model} is paid for its answers: say the most that may be spent by `dollars`",
        )
    labels: list[str] = []
    for index, scorer in enumerate(settings.scorers or ()):
        here: Path_ = (*where, "scorers", index)
        if scorer.label in labels:
            add(here, f"two scorers of {name!r} are called {scorer.label!r}; give one a `name`")
        labels.append(scorer.label)
        if isinstance(scorer, JudgeScorer):
            _rubric(scorer, here, folder, judge, add)


def _rubric(scorer: JudgeScorer, where: Path_, folder: Path, judge: JudgeSettings | None, add: Add) -> None:
    """A rubric whose prompt can be read, asked of a judge that can answer as it wants."""
    try:
        rubric = rubric_of(scorer, folder)
    except DataError as error:
        add((*where, "prompt"), str(error))
        return
    if judge is None:
        add(
            where,
            f"the scorer {scorer.label!r} asks a judge, and none is named: probes: {{scored: {{judge: {{model: ...}}}}}}",
        )
    elif rubric.draws > 1 and judge.temperature == 0:
        add(
            (*where, "draws"),
            f"{rubric.draws} draws of a judge at temperature 0 are one reply; set probes.scored.judge.temperature",
        )
    elif rubric.reasons_first and judge.max_tokens < REASONS_NEED:
        add(
            (*where, "closing"),
            f"closing {rubric.closing!r} comes after reasons, and probes.scored.judge.max_tokens is {judge.max_tokens}; give {REASONS_NEED} or more",
        )


def _judge(data: Mapping[str, Any]) -> JudgeSettings | None:
    """The judge of `probes.scored`; a stand-in where it has a fault of its own, which the schema tells."""
    given = _inner(data, "probes", "scored").get("judge")
    if given is None:
        return None
    try:
        return JudgeSettings.model_validate(given)
    except ValidationError:
        return JudgeSettings(model="unknown", temperature=1.0, max_tokens=REASONS_NEED)


def _inner(data: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
    """The mapping that stands under these keys; empty where there is none."""
    here: object = data
    for key in keys:
        here = cast("Mapping[str, object]", here).get(key) if isinstance(here, Mapping) else None
    return cast("Mapping[str, Any]", here) if isinstance(here, Mapping) else {}
