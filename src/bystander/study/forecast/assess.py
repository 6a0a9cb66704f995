"""The forecast and the review of a planned study, from its plan and the machine: what `plan`, `run` and `status` share."""

from __future__ import annotations

import math
from pathlib import Path

from bystander.analysis.stats.power import smallest_rho
from bystander.core.errors import JudgeError
from bystander.probe.judged import JudgedProbe
from bystander.study.config.study import Loaded
from bystander.study.forecast.forecast import Forecast, forecast
from bystander.study.forecast.open_settings import open_questions
from bystander.study.forecast.prior_results import prior_files
from bystander.study.forecast.review import Outlook, Review, review
from bystander.study.forecast.throughput import rates_for, shape_of
from bystander.study.forecast.workload import CHARACTERS_PER_TOKEN, Workload, counter_for
from bystander.study.plan.cells import Plan
from bystander.study.store.cell_dir import CellDir


def complete_keys(plan: Plan, folder: Path | None) -> set[str]:
    """Keys of the cells that are complete in a run directory."""
    if folder is None or not (folder / "cells").is_dir():
        return set()
    return {cell.key for cell in plan.cells if CellDir(folder / "cells" / cell.folder).complete}


def forecast_of(plan: Plan, folder: Path | None = None, gpu_kind: str | None = None) -> Forecast:
    """The forecast of what is not complete in `folder` (None: of everything)."""
    spec = plan.study.spec
    rates = rates_for(spec.model, gpu_kind or spec.executor.gpu_kind)
    complete = complete_keys(plan, folder)
    dollars, note = judge_dollars(plan, complete)
    return forecast(
        plan, complete, rates, shape_of(spec.model.name), counter_for(spec.model.name),
        workers=spec.executor.workers, dollars=dollars, dollars_note=note,
    )  # fmt: skip


def judge_dollars(plan: Plan, complete: set[str]) -> tuple[float, str]:
    """What the judge will cost for the cells that are not complete, and how that is known."""
    probe = plan.probes.get("judged")
    if not isinstance(probe, JudgedProbe) or probe.judge is None:
        return 0.0, "nothing is judged"
    from bystander.judge.cost import OUTPUT_TOKENS, TOKENS_PER_CHAR, dollars, price_of

    try:
        price = price_of(probe.judge.settings)
    except JudgeError as error:
        return math.nan, str(error)
    workload = Workload(plan, counter_for(plan.study.spec.model.name))
    judged = tokens = 0.0
    for cell in plan.cells:
        if cell.key not in complete:
            work = workload.of(cell)
            judged, tokens = judged + work.judged, tokens + work.judged_tokens
    read = tokens * CHARACTERS_PER_TOKEN * TOKENS_PER_CHAR
    cost = dollars(price, read, judged * OUTPUT_TOKENS, batch=probe.judge.settings.batch)
    return cost, f"{judged:,.0f} judgements at ${price.input:g} / ${price.output:g} a million tokens"


def held_out(plan: Plan) -> int:
    """The fewest held-out bystanders that a design leaves."""
    counts = [sum(role in ("held-out", "mixed") for role in d.roles.values()) for d in plan.all_designs]
    return min(counts, default=0)


def review_of(study: Loaded, plan: Plan, cost: Forecast) -> Review:
    """The review of a plan with its forecast."""
    budget = study.spec.budget
    return review(
        study,
        Outlook(
            total_hours=cost.hours,
            hours_to_first_signal=cost.hours_to_first_signal(),
            gate_hours=cost.hours_through(1) if plan.gate else cost.hours,
            dollars=0.0 if math.isnan(cost.dollars) else cost.dollars,
            budget_hours=budget.gpu_hours,
            budget_dollars=budget.dollars,
            trainings=len(plan.of_kind("train")),
            prior_results=len(prior_files(study.spec.name)),
            smallest_rho=smallest_rho(held_out(plan)),
            blocking_questions=sum(question.blocking for question in open_questions(study)),
        ),
    )
