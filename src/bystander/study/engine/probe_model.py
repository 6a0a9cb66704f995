"""Measuring a model or an adapter that the user already has, outside any study."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bystander.behaviors.capability import load_set
from bystander.core.errors import DataError
from bystander.core.progress import Bar
from bystander.core.records import Context, Measurement
from bystander.lm.model import LoadedModel
from bystander.lm.model import load as load_model
from bystander.personas import context_of, load_personas
from bystander.probe.base import CheckedProbe, Probe
from bystander.probe.choice import other_rules
from bystander.study.config.study import load
from bystander.study.plan.parts import StudyParts


@dataclass(frozen=True, slots=True)
class Probed:
    """What one probe measured, and what the user should know of how."""

    measurements: list[Measurement]
    notes: tuple[str, ...] = ()


def probe_model(
    model: str, name: str, adapter: Path | None, personas: Path | None, overrides: Sequence[str], bar: Bar,
    *, data: str | None = None, items: int | None = None,
) -> Probed:  # fmt: skip
    """Every measurement of one probe under every persona. The probe's settings are those of the quickstart study,
    `overrides` change them (`probes.marker.questions=20`); `data` and `items` name the choice probe's questions. Raises
    DataError for a probe that does not exist."""
    asked = choice_overrides(data or "arc", items) if name == "choice" else []
    if data and name != "choice":
        raise DataError(f"--data {data!r} is for `--probe choice`; the probe {name!r} has its own items")
    probes = StudyParts(load("quickstart", [*asked, *overrides])).probes
    if name not in probes:
        raise DataError(f"no probe {name!r}; known: {', '.join(sorted({*probes, 'choice'}))}")
    contexts = [context_of(persona) for persona in load_personas(personas)]
    loaded = load_model(model)
    probe, notes = decided(probes[name], loaded, contexts)
    measurements: list[Measurement] = []
    with loaded.adapter(adapter):
        weights = loaded.weights_hash
        bar.start(f"{name} probe, {len(contexts)} personas", len(probe.units(contexts)))
        for unit in probe.run(loaded, contexts):
            found = unit.measurements + (other_rules(unit) if name == "choice" else [])
            measurements += [replace(m, weights_hash=weights) for m in found]
            bar.advance()
    return Probed(measurements, notes)


def decided(probe: Probe, loaded: LoadedModel, contexts: Sequence[Context]) -> tuple[Probe, tuple[str, ...]]:
    """The probe with its way of measuring decided on the bare base, and how that came out."""
    if not isinstance(probe, CheckedProbe) or probe.ready:
        return probe, ()
    found = probe.check(loaded, contexts)
    return probe.checked(found), tuple(str(found[key]) for key in ("reason", "warning") if found[key])


def choice_overrides(data: str, items: int | None) -> list[str]:
    """The settings of the choice probe for one set: "arc" (the evaluation half of its split), "hellaswag", "bank", or
    a file of the ARC form; `items` None: 40 of a named set, all of a file."""
    counts: dict[str, int | str] = {"arc": 0, "trained": 0, "hellaswag": 0}
    if data in ("arc", "hellaswag", "bank"):
        counts[data] = 40 if items is None else items
    else:
        path = Path(data).resolve()
        counts |= {"file": str(path), "file_items": len(load_set(str(path), Path())) if items is None else items}
    return [f"probes.choice={json.dumps(counts)}"]
