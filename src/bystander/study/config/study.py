"""A study: its file, its personas, what --set changed in it; read with all faults reported together."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, cast

import yaml

from bystander.core.errors import StudyError
from bystander.core.hashing import stable_hash
from bystander.core.records import Persona
from bystander.core.yamlfile import read_text, read_yaml
from bystander.study.config.behavior_files import behavior_file_faults
from bystander.study.config.load_errors import StudyFaults, check, validate
from bystander.study.config.override_paths import from_working_folder
from bystander.study.config.schema import StudySettings, study_model

# What a study may cost and where it runs changes no number: a run directory stays the same study's.
NOT_IDENTITY = ("question", "budget", "executor", "track")


@dataclass(frozen=True, slots=True)
class ResolvedStudy:
    """A study with what its file names: its personas, and the folder that relative paths start from.

    `given`: dotted keys that the file or --set wrote, to tell what was chosen from what is a default."""

    spec: StudySettings
    personas: tuple[Persona, ...]
    folder: Path
    given: frozenset[str] = frozenset()

    def __reduce__(self) -> tuple[Any, ...]:
        """How it travels to another process, where the settings' class is made anew from the doors."""
        return _from_parts, (self.spec.resolved(), self.personas, self.folder, self.given)

    @property
    def identity(self) -> str:
        """Hash of all settings that decide a result, and of the personas: what makes a run directory this study's."""
        settings = {key: value for key, value in self.spec.resolved().items() if key not in NOT_IDENTITY}
        return stable_hash(settings, [[p.name, p.prompt, p.category, list(p.related_to)] for p in self.personas])


def _from_parts(
    settings: dict[str, Any], personas: tuple[Persona, ...], folder: Path, given: frozenset[str]
) -> ResolvedStudy:
    return ResolvedStudy(study_model().model_validate(settings), personas, folder, given)


def built_in() -> dict[str, Path]:
    """Names and files of the studies that ship with bystander."""
    folder = Path(str(resources.files("bystander") / "studies"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load(where: str, overrides: Sequence[str] = ()) -> ResolvedStudy:
    """Load a study by the name of a built-in one or the path of a YAML file. `overrides` are `key.path=value`, the
    value in YAML. Raises StudyError with every fault and its line."""
    path = built_in().get(where) or Path(where)
    if not path.is_file():
        known = ", ".join(built_in())
        raise StudyError(f"no study {where!r}: no such file, and the built-in studies are {known}")
    try:
        text = read_text(path, "study file")
    except OSError as error:
        raise StudyError(f"cannot read study file {path}: {error.strerror or error}") from error
    except ValueError as error:  # it names the file and says why it is none
        raise StudyError(f"cannot read the study: {error}") from error
    parsed = read_yaml(text)
    if not isinstance(parsed.data, dict):
        faults = list(parsed.faults) or [f"line 1: expected keys and values, found a {type(parsed.data).__name__}"]
        raise StudyError(f"{path} is not a study file", [f"{path.name}, {fault}" for fault in faults])
    original = cast("dict[str, Any]", parsed.data)
    data, overridden = override(original, overrides)
    found = StudyFaults(path.name, parsed, overridden)
    spec = validate(study_model(), data, found)
    behavior_file_faults(data, path.parent, found.add)
    personas = check(spec, path.parent, found) if spec is not None else ()
    found.raise_any(path)
    assert spec is not None
    return ResolvedStudy(spec, personas, path.parent, frozenset(_dotted(data)))


def override(original: dict[str, Any], overrides: Sequence[str]) -> tuple[dict[str, Any], list[tuple[str, ...]]]:
    """A copy of `original` with the overrides put in, and where they stand. Raises StudyError for an override that
    cannot be read."""
    data = deepcopy(original)
    places: list[tuple[str, ...]] = []
    for text in overrides:
        key, separator, value = text.partition("=")
        parsed = read_yaml(value) if separator else None
        if parsed is None or not key or parsed.faults:
            raise StudyError(f"--set {text!r}: expected key.path=value, e.g. --set recipe.lr=1e-4")
        place = data
        *parents, last = key.split(".")
        for parent in parents:
            inner: Any = place.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise StudyError(f"--set {text!r}: {parent!r} is {inner!r}, so it has no {last!r} inside")
            place = cast("dict[str, Any]", inner)
        place[last] = from_working_folder(study_model(), (*parents, last), parsed.data)
        places.append((*parents, last))
    return data, places


def _dotted(data: dict[str, Any], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for key, value in data.items():
        keys.append(f"{prefix}{key}")
        if isinstance(value, dict):
            keys += _dotted(cast("dict[str, Any]", value), f"{prefix}{key}.")
    return keys


def as_yaml(loaded: ResolvedStudy) -> str:
    """The resolved study as a YAML file that loads to the same study."""
    return yaml.safe_dump(loaded.spec.resolved(), sort_keys=False, allow_unicode=True, width=100)


__all__ = ["ResolvedStudy", "StudySettings", "as_yaml", "built_in", "load", "study_model"]
