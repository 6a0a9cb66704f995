"""`bystander plan`: everything that can be known before a study runs. Writes nothing, trains nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bystander.core.records import OpenSetting
from bystander.study.config.blocks import Sweep
from bystander.study.config.study import ResolvedStudy
from bystander.study.forecast.assess import forecast_of, power_of, review_of
from bystander.study.forecast.forecast import Forecast
from bystander.study.forecast.open_settings import open_settings
from bystander.study.forecast.power import GateOdds, TestPower, describe_odds, gate_odds
from bystander.study.forecast.prior_results import PriorGradient, gradients, prior_files
from bystander.study.forecast.remarks import remarks
from bystander.study.forecast.review import Review
from bystander.study.forecast.throughput import known_shape
from bystander.study.plan.cells import Plan, plan_cells
from bystander.study.plan.preregistration import declaration_hash
from bystander.study.store.run_dir import RunDir


@dataclass(frozen=True)
class PlanReport:
    """The whole answer of `bystander plan`. `notes` says what was assumed or estimated, `remarks` what a claim will rest
    on."""

    study: str
    hash: str
    registration: str
    open_settings: tuple[OpenSetting, ...]
    forecast: Forecast
    power: tuple[TestPower, ...]
    gate: GateOdds | None
    gate_on_all: GateOdds | None
    gate_on_all_hours: float
    review: Review
    priors: tuple[PriorGradient, ...]
    designs: tuple[str, ...]
    notes: tuple[str, ...]
    remarks: tuple[str, ...]
    budget_hours: float
    budget_dollars: float

    @property
    def needs_approval(self) -> bool:
        """Whether the forecast is above the budget."""
        return self.forecast.hours > self.budget_hours or self.forecast.dollars > self.budget_dollars

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, without the single cells' costs repeated in the phases."""
        value = asdict(self)
        value["forecast"].pop("needs")
        value["needs_approval"] = self.needs_approval
        value["gate_message"] = describe_odds(self.gate) if self.gate else ""
        for key in ("gate", "gate_on_all"):
            if value[key]:
                for odds in ("passes", "goes_on"):
                    value[key][odds] = {f"{rho:g}": chance for rho, chance in value[key][odds].items()}
        return _finite(value)


def plan_report(
    study: ResolvedStudy, run: RunDir | None = None, *, gpu_kind: str | None = None, workers: int | None = None,
    prior: Sequence[Path] = (),
) -> PlanReport:  # fmt: skip
    """Plan a study; `run` is its run directory, where cells may be complete already. Raises DesignError where its
    design cannot be built, DataError where a question set cannot be read, StudyError for a GPU kind without figures."""
    if workers is not None:
        block = study.spec.executor.model_copy(update={"workers": workers})
        study = replace(study, spec=study.spec.model_copy(update={"executor": block}))
    undecided = plan = plan_cells(study)
    found = run.gate().found if run else None
    if found is not None:
        plan = plan.after_gate(found.picks)
    cost = forecast_of(plan, run, gpu_kind)
    power = power_of(plan)
    odds, on_all, more = _gate(plan, cost, gpu_kind)
    files = [*prior, *prior_files()]
    return PlanReport(
        study.spec.name, undecided.hash, declaration_hash(study), tuple(open_settings(study)), cost, tuple(power),
        odds, on_all, more, review_of(study, plan, cost), tuple(gradients(files, study.personas)),
        tuple(f"{d.behavior}/{d.source}/{d.arm}: {note}" for d in plan.parts.designs() for note in d.notes),
        tuple(_notes(plan, cost)), tuple(remarks(plan, cost, gpu_kind)), study.spec.budget.gpu_hours, study.spec.budget.dollars,
    )  # fmt: skip


def _notes(plan: Plan, cost: Forecast) -> list[str]:
    model = plan.study.spec.model.name
    notes = [f"tokens are {cost.counted}", f"speed: {cost.rates.source}"]
    if not cost.rates.measured:
        notes.append(
            "this machine is not calibrated for this model; `bystander plan --calibrate` measures it in a minute"
        )
    if not known_shape(model):
        notes.append(f"the shape of {model} is not known here; that of an 8-billion-parameter model is assumed")
    if plan.assumed:
        notes.append("the gate has not decided; phases 2 and 3 are counted with the longest configuration of the sweep")
    return notes


def _gate(plan: Plan, cost: Forecast, gpu_kind: str | None) -> tuple[GateOdds | None, GateOdds | None, float]:
    """The gate's odds as planned and on all personas, and the device hours that gating on all would add."""
    study, spec = plan.study, plan.study.spec
    if spec.sweep is None or spec.gate is None:
        return None, None, 0.0
    odds = gate_odds(spec, _gate_bystanders(plan))
    if len(plan.swept) == len(plan.contexts):
        return odds, None, 0.0
    every: Sweep = spec.sweep.model_copy(update={"personas": "all"})
    wider = replace(study, spec=spec.model_copy(update={"sweep": every}))
    wide = plan_cells(replace(plan.parts, study=wider))
    fresh = plan.assumed and len(cost.todo) == len(cost.cells)
    narrow = cost if fresh else forecast_of(plan_cells(plan.parts), None, gpu_kind)
    more = forecast_of(wide, None, gpu_kind).hours_through(1) - narrow.hours_through(1)
    return odds, gate_odds(wider.spec, _gate_bystanders(wide)), more


def _gate_bystanders(plan: Plan) -> int:
    """Held-out bystanders among the swept personas."""
    sweep = plan.study.spec.sweep
    assert sweep is not None
    design = next(d for d in plan.parts.designs() if d.source == sweep.source)
    return sum(role in ("held-out", "mixed") and name in plan.swept for name, role in design.roles.items())


def _finite(value: Any) -> Any:
    """JSON has no NaN: what could not be estimated is null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, list | tuple) else value
