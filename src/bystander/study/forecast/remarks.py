"""What a plan says of its own claims, in sentences: the benign arm and its price, the gate's odds, the control."""

from __future__ import annotations

from dataclasses import replace

from bystander.study.config.study import StudySettings
from bystander.study.forecast.assess import forecast_of
from bystander.study.forecast.forecast import Forecast
from bystander.study.plan.cells import Plan, plan_cells

MINUTE, HOUR = 60.0, 3600.0


def remarks(plan: Plan, cost: Forecast, gpu_kind: str | None = None) -> list[str]:
    """All of them, in the order in which a reader needs them. `cost` is the forecast of `plan`."""
    return benign_arm(plan, cost, gpu_kind)


def benign_arm(plan: Plan, cost: Forecast, gpu_kind: str | None = None) -> list[str]:
    """What the benign arm costs, or would cost where a claim on the contrastive arm has none."""
    spec = plan.study.spec
    if "contrastive" not in spec.arms:
        return []
    if "benign" not in spec.arms:
        return [
            "no benign arm: leakage would be the change from the untrained model, which is mostly baseline, and no claim can "
            f"be confirmed; `benign` in `arms` costs about {duration(_price_of_adding(plan, cost, gpu_kind))} more"
        ]
    of = {cell.key: cell.training for cell in plan.cells if cell.training is not None}
    own = [one for one in cost.cells if one.key in of and of[one.key].arm == "benign"]
    trainings = sum(one.kind == "train" for one in own)
    seconds = sum(one.seconds for one in own)
    total = sum(one.seconds for one in cost.cells)
    return [
        f"the benign arm, which leakage is measured against: {trainings} of {len(plan.of_kind('train'))} trainings, one for "
        f"each other of the contrastive arm; with their probes {duration(seconds)} of {duration(total)}"
    ]


def _price_of_adding(plan: Plan, cost: Forecast, gpu_kind: str | None) -> float:
    """Seconds of device time that a benign arm would add, whatever is complete."""
    with_benign = _with(plan, arms=[*plan.study.spec.arms, "benign"])
    total = sum(one.seconds for one in cost.cells)
    return sum(one.seconds for one in forecast_of(with_benign, None, gpu_kind).cells) - total


def _with(plan: Plan, **changed: object) -> Plan:
    """The plan of the study with other settings; what was built for it is shared."""
    spec: StudySettings = plan.study.spec.model_copy(update=changed)
    picks = None if plan.assumed else plan.picks
    return plan_cells(replace(plan.parts, study=replace(plan.study, spec=spec)), picks)


def duration(seconds: float) -> str:
    """Seconds for a person."""
    if seconds < 2 * MINUTE:
        return f"{seconds:.0f} s"
    return f"{seconds / MINUTE:.0f} min" if seconds < 2 * HOUR else f"{seconds / HOUR:.1f} h"
