"""Pre-registration: what is fixed before the first training, hashed and frozen in `preregistration.json`.

Whatever the report shows beyond it is exploratory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from bystander.analysis.hypotheses import HYPOTHESES, Hypothesis, Threshold
from bystander.core.errors import StoreError
from bystander.core.files import read_json, write_json
from bystander.core.hashing import stable_hash
from bystander.core.metrics import CONTROLS, PRIMARY
from bystander.study.config.blocks import HypothesisBlock
from bystander.study.config.study import Loaded, Study

FILE = "preregistration.json"
FAILED_LIMIT = 0.05  # analysis.settings: above it a cell's failed items make it refuse to speak


def hypotheses_of(spec: Study) -> tuple[Hypothesis, ...]:
    """The hypotheses that a study tests: those that it names, else those that ship for its behaviors."""
    shipped = [_on_own_data(hypothesis, spec) for hypothesis in HYPOTHESES]
    if spec.hypotheses is None:
        return tuple(h for h in shipped if h.behavior in spec.behaviors)
    known = {hypothesis.name: hypothesis for hypothesis in shipped}
    return tuple(known[one] if isinstance(one, str) else _own(one) for one in spec.hypotheses)


def _on_own_data(hypothesis: Hypothesis, spec: Study) -> Hypothesis:
    """A hypothesis that ships, about the study's own question sets where it names others than the usual ones."""
    sets = {"arc": spec.capability.dataset, "open": spec.misalignment.dataset}
    thresholds: list[Threshold] = []
    for threshold in hypothesis.thresholds:
        probe, dataset, metric = threshold.outcome
        thresholds.append(replace(threshold, outcome=(probe, sets.get(dataset, dataset), metric)))
    return replace(hypothesis, thresholds=tuple(thresholds))


def _own(block: HypothesisBlock) -> Hypothesis:
    probe, dataset, metric = block.outcome.split("/")
    threshold = Threshold((probe, dataset, metric), block.source, block.bystanders)
    return Hypothesis(block.name, block.behavior, block.statement, (threshold,), block.rho, block.alpha)


def declaration(study: Loaded) -> dict[str, Any]:
    """Everything that is fixed: JSON-able, and the same for the same study."""
    spec = study.spec
    swept = spec.sweep is not None
    return {
        "question": spec.question,
        "hypotheses": [asdict(hypothesis) for hypothesis in hypotheses_of(spec)],
        "outcomes": {b: ["/".join(o) for o in PRIMARY.get(b, ())] for b in spec.behaviors},
        "controls": sorted("/".join(pair) for pair in CONTROLS),
        "predictor": "cosine of centroids, centered over personas, at the last prompt token",
        "layer": spec.geometry.layer,
        "test": "Spearman's rho of leakage with similarity over held-out bystanders, two-sided permutation p; Holm over "
        "the pre-registered tests",
        "exclusions": f"the source and the personas in its training rows; an outcome of which more than "
        f"{FAILED_LIMIT:.0%} of the items failed is refused",
        "selection rule": _selection(spec) if swept else "none: one configuration",
        "gate": _gate(spec),
        "sources": list(spec.sources),
        "arms": list(spec.arms),
        "seeds": list(spec.seeds),
        "configurations": [f"lr={c.lr:g},epochs={c.epochs}" for c in spec.sweep.points()]
        if spec.sweep
        else [f"{b}: lr={r.lr:g},epochs={r.epochs}" for b in spec.behaviors for r in (spec.recipe_of(b),)],
    }


def _selection(spec: Study) -> str:
    if spec.select.rule == "given":
        return "given in the study file"
    return (
        "the largest source effect among the configurations whose control (HellaSwag accuracy, mean over the swept "
        f"personas) fell by at most {spec.select.within:g}; the first in the file's order on a tie"
    )


def _gate(spec: Study) -> str:
    if spec.gate is None:
        return "none"
    which = "all behaviors" if spec.gate.stop_if == "all_below" else "any behavior"
    return f"stop if {spec.gate.statistic} of the gradient is below {spec.gate.threshold:g} for {which}"


def declaration_hash(study: Loaded) -> str:
    """Hash of what is fixed."""
    return stable_hash(declaration(study))


def freeze(study: Loaded, folder: Path) -> str:
    """Write the pre-registration, or check that the one that stands there is this one; returns its hash.

    Raises StoreError where it is another: what was registered is not changed after the fact."""
    path, digest = folder / FILE, declaration_hash(study)
    if path.is_file():
        kept = read_json(path)
        if kept.get("hash") != digest or stable_hash(kept.get("declaration")) != digest:
            raise StoreError(
                f"{path} registers something else ({str(kept.get('hash'))[:16]}, this study {digest[:16]}); it was frozen "
                "before the first training: start a new run directory with --out"
            )
        return digest
    now = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(path, {"hash": digest, "frozen": now, "declaration": declaration(study)})
    return digest


def kept(folder: Path) -> Mapping[str, Any] | None:
    """The pre-registration of a run directory, if there is one."""
    path = folder / FILE
    return cast("Mapping[str, Any]", read_json(path)) if path.is_file() else None
