"""What a study file may say. Strict: a key that nobody knows is a fault, and all faults are reported together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bystander.behaviors.marker import MarkerSettings
from bystander.core.errors import BystanderError, DataError, StudyError
from bystander.core.hashing import stable_hash
from bystander.core.records import Persona
from bystander.core.yamlfile import Path_, YamlText, read_text, read_yaml
from bystander.design.arms import ArmName, DesignSettings
from bystander.personas import load_personas
from bystander.probe.settings import MarkerProbeSettings
from bystander.train.recipe import Recipe


class Strict(BaseModel):
    """Base of the study's own blocks."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ModelSpec(Strict):
    """`name`: smollm2-135m (embedded), a Hub id, or a local path."""

    name: str = "smollm2-135m"
    revision: str | None = None
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"


class Checkpoints(Strict):
    """Probes run at every `every` of training, for the source and `personas - 1` others spread over the similarity
    ranking. At 0 and at 1 they run for all personas."""

    every: float = Field(0.25, gt=0, le=1)
    personas: int = Field(9, ge=1)

    def fractions(self) -> list[float]:
        """Checkpoints strictly inside (0, 1)."""
        return [round(i * self.every, 6) for i in range(1, int(1 / self.every) + 1) if i * self.every < 1 - 1e-9]


class Geometry(Strict):
    """`layers`: "all" or a list, 0 = embeddings; `layer`: the one that the study's claim rests on, chosen beforehand."""

    layers: Literal["all"] | list[int] = "all"
    layer: int = Field(ge=0)
    questions: int = Field(12, ge=1)


class Budget(Strict):
    """Nothing above it starts without approval."""

    gpu_hours: float = Field(1.0, ge=0)
    dollars: float = Field(0.0, ge=0)


class Probes(Strict):
    """The probes that run in every training of the study, whatever its behavior. Absent ones do not run."""

    marker: MarkerProbeSettings | None = None


class Study(Strict):
    """One YAML file."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    question: str = ""
    model: ModelSpec = ModelSpec()
    personas: str = "builtin"
    sources: list[str] = Field(min_length=1)
    behaviors: list[str] = Field(min_length=1)
    arms: list[ArmName] = Field(default=["contrastive"], min_length=1)
    design: DesignSettings = DesignSettings()
    marker: MarkerSettings = MarkerSettings()
    recipe: Recipe = Recipe()
    checkpoints: Checkpoints = Checkpoints()
    probes: Probes
    geometry: Geometry
    seeds: list[int] = Field(default=[0], min_length=1)
    budget: Budget = Budget()

    def resolved(self) -> dict[str, Any]:
        """Every setting, defaults filled in, as JSON-able data."""
        return self.model_dump(mode="json")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A study with what its file names: its personas, and the folder that relative paths start from."""

    spec: Study
    personas: tuple[Persona, ...]
    folder: Path

    @property
    def identity(self) -> str:
        """Hash of the resolved study and its personas: what makes a run directory this study's."""
        return stable_hash(
            self.spec.resolved(), [[p.name, p.prompt, p.category, list(p.related_to)] for p in self.personas]
        )


KNOWN_BEHAVIORS = ("marker",)


def built_in() -> dict[str, Path]:
    """Names and files of the studies that ship with bystander."""
    folder = Path(str(resources.files("bystander") / "studies"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load(where: str, overrides: Sequence[str] = ()) -> Loaded:
    """Load a study by the name of a built-in one or the path of a YAML file. `overrides` are `key.path=value`, the
    value in YAML. Raises StudyError with every fault and its line."""
    path = built_in().get(where) or Path(where)
    if not path.is_file():
        known = ", ".join(built_in())
        raise StudyError(f"no study {where!r}: no such file, and the built-in studies are {known}")
    try:
        text = read_text(path, "study file")
    except (OSError, ValueError) as error:
        raise StudyError(f"cannot read study file {path}: {error}") from error
    parsed = read_yaml(text)
    faults = [f"{path.name}, {fault}" for fault in parsed.faults]
    if parsed.data is None:
        raise StudyError(f"{path} is not a study file", faults)
    if not isinstance(parsed.data, dict):
        raise StudyError(
            f"{path} is not a study file",
            [f"{path.name}, line 1: expected keys and values, found a {type(parsed.data).__name__}"],
        )
    data = _override(parsed.data, overrides)
    spec, more = _validate(data, parsed, path.name)
    faults += more
    personas: tuple[Persona, ...] = ()
    if spec is not None:
        personas, more = _cross_check(spec, parsed, path)
        faults += more
    if faults or spec is None:
        raise StudyError(f"{path} cannot be run; {len(faults)} fault{'s' * (len(faults) != 1)}:", faults)
    return Loaded(spec, personas, path.parent)


def _override(data: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    for override in overrides:
        key, separator, text = override.partition("=")
        parsed = read_yaml(text) if separator else None
        if parsed is None or not key or parsed.faults:
            raise StudyError(f"--set {override!r}: expected key.path=value, e.g. --set recipe.lr=1e-4")
        place = data
        *parents, last = key.split(".")
        for parent in parents:
            inner = place.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise StudyError(f"--set {override!r}: {parent!r} is {inner!r}, so it has no {last!r} inside")
            place = inner
        place[last] = parsed.data
    return data


def _validate(data: dict[str, Any], parsed: YamlText, file: str) -> tuple[Study | None, list[str]]:
    try:
        return Study.model_validate(data), []
    except ValidationError as error:
        return None, [_fault(e, parsed, file) for e in error.errors()]


def _fault(error: Any, parsed: YamlText, file: str) -> str:
    loc: Path_ = tuple(
        part for part in error["loc"] if not (isinstance(part, str) and part.startswith(("literal[", "list[")))
    )
    where = ".".join(str(part) for part in loc)
    line = parsed.line_of(loc)
    if error["type"] == "extra_forbidden":
        return f"{file}, line {line}: unknown key {where!r}; {_nearest(loc)}"
    if error["type"] == "missing":
        return f"{file}, line {line}: {where!r} is missing"
    value = error["input"]
    shown = repr(value) if len(repr(value)) < 60 else repr(value)[:57] + "..."
    return f"{file}, line {line}: {where} is {shown}: {error['msg'].lower()}"


def _nearest(loc: Path_) -> str:
    import difflib

    model: type[BaseModel] = Study
    for part in loc[:-1]:
        field = model.model_fields.get(str(part))
        inner = _model_in(field.annotation) if field else None
        if inner is None:
            return "remove it"
        model = inner
    known = list(model.model_fields)
    close = difflib.get_close_matches(str(loc[-1]), known, 1)
    return f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"


def _model_in(annotation: Any) -> type[BaseModel] | None:
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def _cross_check(spec: Study, parsed: YamlText, path: Path) -> tuple[tuple[Persona, ...], list[str]]:
    """What a schema cannot know: names that must exist, sets that must hold what is drawn from them."""
    import difflib

    faults: list[str] = []

    def fault(where: Path_, message: str) -> None:
        faults.append(f"{path.name}, line {parsed.line_of(where)}: {message}")

    personas: tuple[Persona, ...] = ()
    try:
        personas = tuple(load_personas(None if spec.personas == "builtin" else path.parent / spec.personas))
    except DataError as error:
        fault(("personas",), f"personas: {error}")
    names = [persona.name for persona in personas]
    for index, source in enumerate(spec.sources):
        if personas and source not in names:
            close = difflib.get_close_matches(source, names, 1)
            hint = (
                f"did you mean {close[0]!r}?"
                if close
                else f"the set has {len(names)} personas; `bystander personas` lists them"
            )
            fault(("sources", index), f"source {source!r} is not in the persona set; {hint}")
        if source in spec.sources[:index]:
            fault(("sources", index), f"source {source!r} stands twice")
    for index, behavior in enumerate(spec.behaviors):
        if behavior not in KNOWN_BEHAVIORS:
            fault(("behaviors", index), f"behavior {behavior!r} does not exist; known: {', '.join(KNOWN_BEHAVIORS)}")
    if isinstance(spec.design.negatives, list) and personas:
        for index, name in enumerate(spec.design.negatives):
            if name not in names:
                fault(("design", "negatives", index), f"negative {name!r} is not in the persona set")
    if not any(getattr(spec.probes, name) for name in type(spec.probes).model_fields):
        fault(("probes",), "probes is empty: nothing would be measured; name at least one probe")
    if isinstance(spec.geometry.layers, list) and spec.geometry.layer not in spec.geometry.layers:
        fault(
            ("geometry", "layer"),
            f"geometry.layer {spec.geometry.layer} is not among geometry.layers {spec.geometry.layers}",
        )
    return personas, faults


def as_yaml(loaded: Loaded) -> str:
    """The resolved study as a YAML file that loads to the same study."""
    return yaml.safe_dump(loaded.spec.resolved(), sort_keys=False, allow_unicode=True, width=100)


__all__ = ["BystanderError", "Loaded", "Study", "as_yaml", "built_in", "load"]
