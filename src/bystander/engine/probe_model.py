"""Measuring a model or adapters that the user already has, as they are: nothing is compared, nothing is kept."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bystander.core.errors import DataError
from bystander.core.progress import Bar
from bystander.core.records import Measurement
from bystander.engine.probe_request import ProbeRequest, decided
from bystander.lm.model import load as load_model
from bystander.personas import context_of, load_personas
from bystander.study.plan.parts import StudyParts


@dataclass(frozen=True, slots=True)
class Probed:
    """What one probe measured with one adapter ("" for the bare model)."""

    adapter: str
    measurements: list[Measurement]


def probe_model(asked: ProbeRequest, bar: Bar) -> tuple[list[Probed], list[str]]:
    """Every measurement of one probe under every persona, adapter by adapter (of the bare model where there is none), and
    what the user should know of how. The model is loaded once. Raises DataError as `ProbeRequest.study`, ModelError for
    an adapter that does not fit."""
    study = asked.study()
    parts = StudyParts(study)
    name, model = asked.probe, study.spec.model
    contexts = [context_of(persona, study.spec.personas_in) for persona in load_personas(asked.personas)]
    probe = parts.probes[name]
    loaded = load_model(model.name, device=model.device, dtype=model.dtype, revision=model.revision)
    probe, said = decided(probe, loaded, contexts)
    notes, found = list(said), list[Probed]()
    for adapter in asked.adapters or (None,):
        measurements: list[Measurement] = []
        with loaded.adapter(adapter, base_ok=asked.base_ok):
            notes += [f"{asked.called(adapter)}: {note}" for note in loaded.notes]
            weights = loaded.weights_hash
            bar.start(f"{name} probe, {len(contexts)} personas", len(probe.units(contexts)))
            for unit in probe.run(loaded, contexts):
                rows = unit.measurements + probe.by_other_rules(unit)
                measurements += [replace(m, weights_hash=weights) for m in rows]
                bar.advance()
        if not measurements:
            raise DataError(
                f"the probe {name!r} measured nothing: it samples answers for a judge to score. Give it one (--set "
                "probes.judged.judge.model=PROVIDER/NAME), or keep the answers for `bystander judge` (--source)"
            )
        found.append(Probed(asked.called(adapter), measurements))
    return found, notes
