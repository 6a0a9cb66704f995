"""Pre-registration: what is fixed before the first training, hashed and frozen in `preregistration.json`.

Whatever the report shows beyond it is exploratory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any, cast

from bystander.analysis.hypotheses import HYPOTHESES, Hypothesis, Threshold
from bystander.behaviors.answers import AnswersSettings
from bystander.behaviors.shipped import shipped
from bystander.core import doors
from bystander.core.errors import StoreError
from bystander.core.files import read_json, write_json
from bystander.core.hashing import stable_hash
from bystander.core.metrics import controls, outcomes_of
from bystander.study.config.blocks import HypothesisBlock
from bystander.study.config.study import ResolvedStudy, StudySettings
from bystander.study.plan.cells import config_label
from bystander.study.plan.parts import renamed
from bystander.study.store.run_dir import RunDir

FAILED_LIMIT = 0.05  # analysis.settings: above it a cell's failed items make it refuse to speak


def hypotheses_of(study: ResolvedStudy) -> tuple[Hypothesis, ...]:
    """The hypotheses that a study tests: those that it names, else those that ship for its behaviors; about its own
    question sets where it names others than the usual ones."""
    shipped = [_on_own_data(hypothesis, study) for hypothesis in HYPOTHESES]
    shipped += [_of_file(settings) for settings in study.spec.answers.values()]
    if study.spec.hypotheses is None:
        return tuple(h for h in shipped if h.behavior in study.spec.behaviors)
    known = {hypothesis.name: hypothesis for hypothesis in shipped}
    return tuple(known[one] if isinstance(one, str) else _own(one) for one in study.spec.hypotheses)


def _on_own_data(hypothesis: Hypothesis, study: ResolvedStudy) -> Hypothesis:
    thresholds = [replace(one, outcome=renamed(study, one.outcome)) for one in hypothesis.thresholds]
    return replace(hypothesis, thresholds=tuple(thresholds))


def _of_file(settings: AnswersSettings) -> Hypothesis:
    """What a behavior that is a file claims: on sampled answers where a scorer sees them, else on held-out pairs."""
    claim, name = settings.claim, settings.name
    statement = shipped(name).hypothesis if settings.ships else (
        f"{name}: the source shows it more often by at least {claim.source:.0%}, held-out bystanders by more than "
        f"{claim.bystanders:.0%}, and the change follows similarity."
    )  # fmt: skip
    outcomes = ((probe, name, metric) for probe, metric in (("scored", "shown"), ("margin", "shown_wins")))
    thresholds = tuple(Threshold(outcome, claim.source, claim.bystanders) for outcome in outcomes)
    return Hypothesis(name, name, statement, thresholds, claim.rho, claim.alpha)


def _own(block: HypothesisBlock) -> Hypothesis:
    probe, dataset, metric = block.outcome.split("/")
    threshold = Threshold((probe, dataset, metric), block.source, block.bystanders)
    return Hypothesis(block.name, block.behavior, block.statement, (threshold,), block.rho, block.alpha)


def declaration(study: ResolvedStudy) -> dict[str, Any]:
    """Everything that is fixed: JSON-able, and the same for the same study."""
    spec = study.spec
    swept = spec.sweep is not None
    return {
        "question": spec.question,
        "hypotheses": [asdict(hypothesis) for hypothesis in hypotheses_of(study)],
        "outcomes": {b: ["/".join(o) for o in outcomes_of(b)] for b in spec.behaviors},
        "controls": controls(),
        "predictor": f"{spec.geometry.method}: {doors.load('predictor', spec.geometry.method).label}",
        "layer": spec.geometry.layer,
        "test": "Spearman's rho of leakage with similarity over held-out bystanders; p is the source's rank among all "
        "personas as sources (over several sources, of their labels permuted), or, where not all similarities are known, of "
        "the personas permuted; Holm over the pre-registered tests",
        "exclusions": f"the source and the personas in its training rows; an outcome of which more than "
        f"{FAILED_LIMIT:.0%} of the items failed is refused",
        "selection rule": _selection(spec) if swept else "none: one configuration",
        "gate": _gate(spec),
        "sources": list(spec.sources),
        "arms": list(spec.arms),
        "seeds": list(spec.seeds),
        "configurations": [config_label(c.lr, c.epochs) for c in spec.sweep.points()]
        if spec.sweep
        else [f"{b}: {config_label(r.lr, r.epochs)}" for b in spec.behaviors for r in (spec.recipe_of(b),)],
    }


def _selection(spec: StudySettings) -> str:
    if spec.select.rule == "given":
        return "given in the study file"
    return (
        "the largest source effect among the configurations whose control (HellaSwag accuracy, mean over the swept "
        f"personas) fell by at most {spec.select.within:g}; the first in the file's order on a tie"
        + ("; picked on half of the questions, by the hash of their names, and tested on the others"
           if spec.select.items == "split" else "")
    )  # fmt: skip


def _gate(spec: StudySettings) -> str:
    if spec.gate is None:
        return "none"
    which = "all behaviors" if spec.gate.stop_if == "all_below" else "any behavior"
    return f"stop if {spec.gate.statistic} of the gradient is below {spec.gate.threshold:g} for {which}, in {spec.gate.outcome or 'what the hypothesis is judged by'}"


def declaration_hash(study: ResolvedStudy) -> str:
    """Hash of what is fixed."""
    return stable_hash(declaration(study))


def freeze(study: ResolvedStudy, run: RunDir) -> str:
    """Write the pre-registration, or check that the one that stands there is this one; returns its hash.

    Raises StoreError where it is another: what was registered is not changed after the fact."""
    path, digest = run.registration_file, declaration_hash(study)
    if path.is_file():
        saved = read_json(path)
        if saved.get("hash") != digest or stable_hash(saved.get("declaration")) != digest:
            raise StoreError(
                f"{path} registers something else ({str(saved.get('hash'))[:16]}, this study {digest[:16]}); it was frozen "
                "before the first training: start a new run directory with --out"
            )
        if saved.get("forecast", "") != _forecast(run):
            raise StoreError(
                f"{run.forecast_file} is not the forecast of leakage that was registered before the first training; put it "
                "back, or start a new run directory with --out"
            )
        return digest
    now = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(path, {"hash": digest, "frozen": now, "forecast": _forecast(run), "declaration": declaration(study)})
    return digest


def _forecast(run: RunDir) -> str:
    """Hash of the forecast of leakage that was made before the run; "" where none was."""
    if not run.forecast_file.is_file():
        return ""
    saved = read_json(run.forecast_file)
    if saved.get("hash") != stable_hash(saved.get("forecast")):
        raise StoreError(f"{run.forecast_file} was changed since it was made: make it anew in a new run directory")
    return str(saved["hash"])


def registered(run: RunDir) -> Mapping[str, Any] | None:
    """The pre-registration of a run directory, if there is one."""
    path = run.registration_file
    return cast("Mapping[str, Any]", read_json(path)) if path.is_file() else None
