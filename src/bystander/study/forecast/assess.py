"""The forecast and the review of a planned study, from its plan and the machine: what `plan`, `run` and `status` share."""

from __future__ import annotations

import math

from bystander.analysis.stats.power import smallest_rho
from bystander.core.work import Work
from bystander.study.config.schema import StudySettings
from bystander.study.config.study import ResolvedStudy
from bystander.study.forecast.forecast import Forecast, forecast
from bystander.study.forecast.learn import AS_PUBLISHED, Speeds, learned, seconds_taken
from bystander.study.forecast.open_settings import open_settings
from bystander.study.forecast.power import TestPower, power_of_tests
from bystander.study.forecast.prior_results import prior_files
from bystander.study.forecast.review import Review, ReviewInputs, review
from bystander.study.forecast.throughput import TOGETHER, Rates, rates_for, shape_of, worker_share
from bystander.study.forecast.workload import Workload, counter_for
from bystander.study.plan.cells import Plan
from bystander.study.plan.preregistration import hypotheses_of
from bystander.study.store.run_dir import RunDir


def complete_keys(plan: Plan, run: RunDir | None) -> set[str]:
    """Keys of the cells that are complete in a run directory."""
    folders = run.complete_folders() if run else set[str]()
    return {cell.key for cell in plan.cells if cell.folder in folders}


def forecast_of(plan: Plan, run: RunDir | None = None, gpu_kind: str | None = None) -> Forecast:
    """The forecast of what is not complete in `run` (None: of everything), as the cells that are done there have taught
    it."""
    spec = plan.study.spec
    rates = rates_for(spec.model, gpu_kind or spec.executor.gpu_kind)
    complete = complete_keys(plan, run)
    dollars, note = dollars_of(plan, complete)
    return forecast(
        plan, complete, rates, shape_of(spec.model.name), counter_for(spec.model.name),
        workers=spec.executor.workers, dollars=dollars, dollars_note=note, share=worker_share(spec.executor),
        together=expected_together(spec, rates), speeds=_speeds(run),
    )  # fmt: skip


def expected_together(spec: StudySettings, rates: Rates) -> int:
    """Trainings that a worker will do in joint passes: what the study says, else where a GPU gains by it."""
    if spec.executor.together != "auto":
        return spec.executor.together
    return TOGETHER if rates.kind != "cpu" and rates.overheads.step else 1


def _speeds(run: RunDir | None) -> Speeds:
    saved = run.plan() if run else None
    return AS_PUBLISHED if run is None or saved is None else learned(saved.cells, seconds_taken(run.events()))


def dollars_of(plan: Plan, complete: set[str]) -> tuple[float, str]:
    """What probes pay to services for the cells that are not complete, and how that is known. NaN: not known."""
    workload = Workload(plan, counter_for(plan.study.spec.model.name))
    todo = sum((workload.of(cell) for cell in plan.cells if cell.key not in complete), Work())
    costs = [cost for probe in plan.probes.values() if (cost := probe.dollars(todo))[1]]
    notes = "; ".join(note for _, note in costs)
    return sum((dollars for dollars, _ in costs), 0.0), notes or "nothing is judged"


def held_out(plan: Plan) -> int:
    """The fewest held-out bystanders that a design leaves."""
    counts = [sum(role in ("held-out", "mixed") for role in d.roles.values()) for d in plan.parts.designs()]
    return min(counts, default=0)


def power_of(plan: Plan) -> list[TestPower]:
    """What the tests of a study's hypotheses can find."""
    items = {(name, dataset): count for name, probe in plan.probes.items() for dataset, count in probe.items().items()}
    return power_of_tests(hypotheses_of(plan.study), held_out(plan), items, len(plan.study.spec.seeds))


def review_of(study: ResolvedStudy, plan: Plan, cost: Forecast) -> Review:
    """The review of a plan with its forecast."""
    budget = study.spec.budget
    return review(
        study,
        ReviewInputs(
            total_hours=cost.hours,
            hours_to_first_signal=cost.hours_to_first_signal(),
            gate_hours=cost.hours_through(1) if plan.gate else cost.hours,
            dollars=0.0 if math.isnan(cost.dollars) else cost.dollars,
            budget_hours=budget.gpu_hours,
            budget_dollars=budget.dollars,
            trainings=len(plan.of_kind("train")),
            prior_results=len(prior_files()),
            smallest_rho=smallest_rho(held_out(plan)),
            blocking_questions=sum(question.blocking for question in open_settings(study)),
            out_of_reach=tuple(test.out_of_reach for test in power_of(plan) if test.out_of_reach),
        ),
    )
