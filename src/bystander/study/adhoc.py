"""Measuring a model or an adapter that the user already has, outside any study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bystander.core.errors import DataError
from bystander.core.records import Measurement
from bystander.lm.model import load as load_model
from bystander.personas import context_of, load_personas
from bystander.study.progress import Bar
from bystander.study.registry import make_probes
from bystander.study.spec import load


def probe_model(
    model: str, name: str, adapter: Path | None, personas: Path | None, overrides: Sequence[str], bar: Bar
) -> list[Measurement]:
    """Every measurement of one probe under every persona. The probe's settings are those of the quickstart study,
    `overrides` change them (`probes.marker.questions=20`). Raises DataError for a probe that does not exist."""
    study = load("quickstart", overrides)
    probes = make_probes(study)
    if name not in probes:
        raise DataError(f"no probe {name!r}; known: {', '.join(probes)}")
    contexts = [context_of(persona) for persona in load_personas(personas)]
    loaded = load_model(model)
    measurements: list[Measurement] = []
    with loaded.adapter(adapter):
        weights = loaded.weights_hash
        bar.start(f"{name} probe, {len(contexts)} personas", len(probes[name].units(contexts)))
        for unit in probes[name].run(loaded, contexts):
            measurements += [replace(m, weights_hash=weights) for m in unit.measurements]
            bar.advance()
    return measurements
