"""What trainings that were to end at a dose came to, in sentences for the analysis."""

from __future__ import annotations

from collections.abc import Iterable

from bystander.study.store.records import CellManifest


def dose_notes(trainings: Iterable[CellManifest]) -> list[str]:
    """A sentence for each training that has a dose, those that never came into the band first."""
    found = [(one.dose.state == "in the band", _sentence(one)) for one in trainings if one.dose is not None]
    return [sentence for _, sentence in sorted(found, key=lambda pair: pair[0])]


def _sentence(manifest: CellManifest) -> str:
    dose, training = manifest.dose, manifest.training
    assert dose is not None
    assert training is not None
    name = ", ".join((training.behavior, training.source, training.arm, training.config, f"seed {training.seed}"))
    after = f"after {dose.step} of {dose.steps} steps"
    if dose.state == "as its contrastive twin":
        return f"{name}: ended {after}, as the contrastive training that it is compared with"
    seen = "could not be read" if dose.gain is None else f"was {dose.gain:.3g}"
    band = (
        f"{dose.state} [{dose.low:g}, {dose.high:g}]" if dose.state != "not measured" else "no item had a value twice"
    )
    kept = "ended" if dose.state == "in the band" else "kept, though not at the dose of the others,"
    return f"{name}: {kept} {after}: the source's gain in {dose.metric} {seen} ({band})"
