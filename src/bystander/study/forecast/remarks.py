"""What a plan says of its own claims, in sentences: the benign arm and its price, the gate's odds, the control, what a
configuration is picked on, the dose."""

from __future__ import annotations

from dataclasses import replace

from bystander.analysis.stats.control import PLANNED_ITEMS, fall_found
from bystander.analysis.stats.gate import bystanders_needed, gate_stops
from bystander.analysis.stats.ranks import MIN_PERSONAS
from bystander.study.config.study import StudySettings
from bystander.study.forecast.assess import forecast_of
from bystander.study.forecast.forecast import Forecast
from bystander.study.plan.cells import Plan, plan_cells, swept_behaviors
from bystander.study.plan.picked_items import gate_outcomes, splits_items

MINUTE, HOUR = 60.0, 3600.0
NOTHING = (0.0, -0.5)  # true rhos at which a gate should stop
MOST_BYSTANDERS = 200
CHANGED = 0.5  # standard deviation over questions of a control's change; 0.45 to 0.67 on HellaSwag
FEW_TO_TEST = 8


def remarks(plan: Plan, cost: Forecast, gpu_kind: str | None = None) -> list[str]:
    """All of them, in the order in which a reader needs them. `cost` is the forecast of `plan`."""
    return [*benign_arm(plan, cost, gpu_kind), *gate_with_power(plan, cost), *control(plan), *split(plan), *dose(plan)]


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
        f"the benign arm, which leakage is measured against: {trainings} of {len(plan.of_kind('train'))} trainings, one "
        f"beside each of the contrastive arm; with their probes {duration(seconds)} of {duration(total)}"
    ]


def _price_of_adding(plan: Plan, cost: Forecast, gpu_kind: str | None) -> float:
    """Seconds of device time that a benign arm would add, whatever is complete."""
    with_benign = _with(plan, arms=[*plan.study.spec.arms, "benign"])
    total = sum(one.seconds for one in cost.cells)
    return sum(one.seconds for one in forecast_of(with_benign, None, gpu_kind).cells) - total


def gate_with_power(plan: Plan, cost: Forecast) -> list[str]:
    """How often the gate stops a study in which there is nothing to find, and what one that does so costs."""
    spec = plan.study.spec
    if spec.gate is None or spec.sweep is None:
        return []
    n, gate = gate_bystanders(plan), spec.gate
    name = "rho" if gate.statistic == "rho" else f"the {gate.statistic} end of rho's interval"
    if n < MIN_PERSONAS:
        return [f"the gate on {name} has {n} bystanders: there is no rho of so few, so that it stops every study"]
    stops = ", ".join(f"{gate_stops(n, gate.threshold, rho, gate.statistic):.0%} at {rho:g}" for rho in NOTHING)
    said = f"the gate on {name} with {n} bystanders stops a behavior whose true rho is nothing or less in: {stops}"
    needed = bystanders_needed(gate.threshold, gate.statistic, most=MOST_BYSTANDERS)
    if needed is None:
        return [f"{said}; not even {MOST_BYSTANDERS} bystanders stop four of five at 0: read another statistic"]
    if needed <= n:
        return [f"{said}; that is a gate with power"]
    swept = sum(one.seconds for one in cost.cells if one.kind == "evaluate" and one.phase == 1)
    more = swept * (needed - n) / max(1, len(plan.swept))
    there = "" if needed < len(plan.contexts) else f" (the set has {len(plan.contexts)} personas)"
    return [
        f"{said}; to stop four of five at 0 it needs {needed} bystanders{there}, about {duration(more)} more of probing"
    ]


def gate_bystanders(plan: Plan) -> int:
    """Held-out bystanders among the swept personas."""
    sweep = plan.study.spec.sweep
    assert sweep is not None
    design = next(d for d in plan.parts.designs() if d.source == sweep.source)
    return sum(role in ("held-out", "mixed") and name in plan.swept for name, role in design.roles.items())


def control(plan: Plan) -> list[str]:
    """How many control questions are asked, and what fall of the model they would find."""
    limit = plan.study.spec.select.within
    found: list[str] = []
    for name, probe in plan.probes.items():
        for dataset in set(probe.items()) & set(probe.controls):
            asked = probe.questions_asked(dataset, plan.contexts)
            less = "" if asked >= PLANNED_ITEMS else f"; {PLANNED_ITEMS} would find {fall(PLANNED_ITEMS, limit)}"
            found.append(
                f"control {name}/{dataset}: {asked} different questions over all personas find a fall of {fall(asked, limit)} "
                f"with 80 % power (limit {limit:g}){less}"
            )
    return found


def fall(items: int, limit: float) -> str:
    """The smallest fall that is called a broken model, as a fraction."""
    return f"{fall_found(CHANGED, items, limit):.2g}" if items > 1 else "no size"


def split(plan: Plan) -> list[str]:
    """How many questions a configuration is picked on and how many are left to test it on."""
    if not splits_items(plan.study.spec):
        return []
    counts = {(name, dataset): n for name, probe in plan.probes.items() for dataset, n in probe.items().items()}
    found: list[str] = []
    for behavior in swept_behaviors(plan.study):
        outcome = next((one for one in gate_outcomes(plan.study, behavior) if one[:2] in counts), None)
        if outcome is not None:
            n = counts[outcome[:2]]
            few = "; with so few left a test finds little" if n - round(n / 2) < FEW_TO_TEST else ""
            found.append(
                f"{behavior}: the configuration is picked on {round(n / 2)} of the {n} questions of {'/'.join(outcome)} and "
                f"tested on the other {n - round(n / 2)}{few}"
            )
    return found


def dose(plan: Plan) -> list[str]:
    """What trainings end at."""
    asked = plan.study.spec.train_to
    if asked is None:
        return [
            "every training goes to its last step: arms, sources and sweeps may end at different doses (`train_to`)"
        ]
    low, high = asked.band
    return [
        f"each training ends where its source's gain in {asked.metric} is in [{low:g}, {high:g}], read after every "
        f"{asked.every} steps; it is counted here as if it went to its last step"
    ]


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
