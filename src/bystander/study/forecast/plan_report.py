"""`bystander plan`: everything that can be known before a study runs. Writes nothing, trains nothing."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bystander.core.errors import DataError
from bystander.study.config.blocks import Sweep
from bystander.study.config.study import Loaded
from bystander.study.engine.budget import HASH_CHARACTERS
from bystander.study.engine.gate import picks_of
from bystander.study.engine.run import plan_hash
from bystander.study.forecast.assess import forecast_of, held_out, review_of
from bystander.study.forecast.forecast import Forecast
from bystander.study.forecast.open_settings import OpenQuestion, open_questions
from bystander.study.forecast.power import GateOdds, TestPower, gate_odds, power_of_tests, said
from bystander.study.forecast.prior_results import PriorGradient, gradients, prior_files
from bystander.study.forecast.review import Review
from bystander.study.forecast.throughput import known_shape
from bystander.study.plan.cells import Plan, plan_cells
from bystander.study.plan.preregistration import declaration_hash, hypotheses_of


@dataclass(frozen=True)
class Planned:
    """The whole answer of `bystander plan`. `notes` says what was assumed or estimated."""

    study: str
    hash: str
    registration: str
    questions: tuple[OpenQuestion, ...]
    forecast: Forecast
    power: tuple[TestPower, ...]
    gate: GateOdds | None
    gate_on_all: GateOdds | None
    gate_on_all_hours: float
    review: Review
    priors: tuple[PriorGradient, ...]
    designs: tuple[str, ...]
    notes: tuple[str, ...]
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
        value["gate_said"] = said(self.gate) if self.gate else ""
        for key in ("gate", "gate_on_all"):
            if value[key]:
                for odds in ("passes", "goes_on"):
                    value[key][odds] = {f"{rho:g}": chance for rho, chance in value[key][odds].items()}
        return _finite(value)


def planned(
    study: Loaded, folder: Path | None = None, *, gpu_kind: str | None = None, workers: int | None = None,
    prior: Sequence[Path] = (),
) -> Planned:  # fmt: skip
    """Plan a study; `folder` is its run directory, where cells may be complete already. Raises DesignError where its
    design cannot be built, StudyError for a GPU kind without figures."""
    if workers is not None:
        block = study.spec.executor.model_copy(update={"workers": workers})
        study = replace(study, spec=study.spec.model_copy(update={"executor": block}))
    with data_or_stand_ins(published_sets(study)) as stand_ins:
        plan = plan_cells(study)
        digest = plan_hash(plan)
        decided = picks_of(plan, folder) if folder else None
        if decided is not None:
            plan = plan_cells(study, decided)
        cost = forecast_of(plan, folder, gpu_kind)
        power = power_of_tests(hypotheses_of(study.spec), held_out(plan), _items(plan), len(study.spec.seeds))
        odds, on_all, more = _gate(study, plan, cost, gpu_kind)
        review = review_of(study, plan, cost)
    files = [*prior, *prior_files(study.spec.name)]
    return Planned(
        study.spec.name, digest, declaration_hash(study), tuple(open_questions(study)), cost, tuple(power),
        odds, on_all, more, review, tuple(gradients(files, study.personas)),
        tuple(f"{d.behavior}/{d.source}/{d.arm}: {note}" for d in plan.all_designs for note in d.notes),
        tuple(_notes(study, plan, cost, stand_ins)), study.spec.budget.gpu_hours, study.spec.budget.dollars,
    )  # fmt: skip


def _notes(study: Loaded, plan: Plan, cost: Forecast, stand_ins: Sequence[str]) -> list[str]:
    spec = study.spec
    notes = [f"tokens are {cost.counted}", f"speed: {cost.rates.source}"]
    if not cost.rates.measured:
        notes.append(
            "this machine is not calibrated for this model; `bystander plan --calibrate` measures it in a minute"
        )
    if not known_shape(spec.model.name):
        notes.append(
            f"the shape of {spec.model.name} is not known here; that of an 8-billion-parameter model is assumed"
        )
    notes += [
        f"{name} cannot be reached from here; stand-in questions of its usual length were counted" for name in stand_ins
    ]
    if plan.assumed:
        notes.append("the gate has not decided; phases 2 and 3 are counted with the longest configuration of the sweep")
    return notes


def _items(plan: Plan) -> dict[tuple[str, str], int]:
    """(probe, dataset) -> items that a persona is measured on."""
    from bystander.probe.choice import ChoiceProbe
    from bystander.probe.judged import JudgedProbe
    from bystander.probe.margin import MarginProbe
    from bystander.probe.marker import MarkerProbe

    found: dict[tuple[str, str], int] = {}
    for probe in plan.probes.values():
        if isinstance(probe, MarkerProbe):
            found["marker", "bank"] = probe.settings.questions
        elif isinstance(probe, ChoiceProbe):
            found |= {("choice", one.dataset): min(len(one.questions), one.each or 10**9) for one in probe.sets}
        elif isinstance(probe, MarginProbe):
            found["margin", "pairs"] = len(probe.read())
        elif isinstance(probe, JudgedProbe):
            found["judged", probe.dataset] = len(probe.requests(plan.contexts[:1]))
    return found


def _gate(
    study: Loaded, plan: Plan, cost: Forecast, gpu_kind: str | None
) -> tuple[GateOdds | None, GateOdds | None, float]:
    """The gate's odds as planned and on all personas, and the device hours that gating on all would add."""
    spec = study.spec
    if spec.sweep is None or spec.gate is None:
        return None, None, 0.0
    bystanders = _gate_bystanders(plan)
    odds = gate_odds(spec, bystanders)
    if len(plan.swept) == len(plan.contexts):
        return odds, None, 0.0
    every: Sweep = spec.sweep.model_copy(update={"personas": "all"})
    wider = replace(study, spec=spec.model_copy(update={"sweep": every}))
    wide = plan_cells(wider)
    fresh = plan.assumed and len(cost.todo) == len(cost.cells)
    narrow = cost if fresh else forecast_of(plan_cells(study), None, gpu_kind)
    more = forecast_of(wide, None, gpu_kind).hours_through(1) - narrow.hours_through(1)
    return odds, gate_odds(wider.spec, _gate_bystanders(wide)), more


def _gate_bystanders(plan: Plan) -> int:
    """Held-out bystanders among the swept personas."""
    sweep = plan.study.spec.sweep
    assert sweep is not None
    design = next(d for d in plan.all_designs if d.source == sweep.source)
    return sum(role in ("held-out", "mixed") and name in plan.swept for name, role in design.roles.items())


@contextmanager
def data_or_stand_ins(wanted: Sequence[str]) -> Generator[list[str]]:
    """Within the block every published question set of `wanted` can be read: from this machine, or as a stand-in of its usual
    length, so that a plan needs no network. Yields the names of the sets that are stand-ins."""
    from bystander.data.choice_source import DATA_VARIABLE

    with _no_downloads():
        missing = _missing(wanted)
        if not missing:
            yield []
            return
    before = os.environ.get(DATA_VARIABLE)
    with tempfile.TemporaryDirectory(prefix="bystander-plan-") as scratch:
        _write_stand_ins(Path(scratch), before, missing)
        os.environ[DATA_VARIABLE] = scratch
        try:
            yield missing
        finally:
            if before is None:
                del os.environ[DATA_VARIABLE]
            else:
                os.environ[DATA_VARIABLE] = before


@contextmanager
def _no_downloads() -> Generator[None]:
    """Within the block the Hub's client reads its cache and asks nobody."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _missing(wanted: Sequence[str]) -> list[str]:
    from bystander.data import load_choice

    missing: list[str] = []
    for name in wanted:
        try:
            load_choice(name)
        except DataError:
            missing.append(name)
    return missing


def published_sets(study: Loaded) -> list[str]:
    """The published question sets that a study reads."""
    spec, found = study.spec, list[str]()
    choice = spec.probes.choice
    if spec.capability.data == "arc" and ("capability" in spec.behaviors or (choice and choice.arc)):
        found.append("arc")
    if choice and choice.hellaswag:
        found.append("hellaswag")
    return found


def _write_stand_ins(folder: Path, known: str | None, missing: Sequence[str]) -> None:
    """Question sets of the published form, size and usual length, every question different."""
    from bystander.data import write_jsonl
    from bystander.data.choice_source import PUBLISHED

    for name, published in PUBLISHED.items():
        target = folder / "data" / published.local
        target.parent.mkdir(exist_ok=True)
        if name in missing:
            rows = [_arc(i) if name == "arc" else _hellaswag(i) for i in range(1172)]  # Clark et al. 2018, table 1
            write_jsonl(target, rows)
        elif known:
            target.symlink_to((Path(known) / "data" / published.local).resolve())


def _words(number: int, count: int) -> str:
    """`count` words that no other number has: near-duplicates would be refused."""
    from bystander.core.hashing import stable_hash

    letters = stable_hash("stand-in", number) * 4
    return " ".join(letters[i * 5 : i * 5 + 5] for i in range(count))


def _arc(number: int) -> dict[str, object]:
    # ARC-Challenge, test: a question has 23 words and a choice 5 on average
    options = [f"{_words(number * 10 + i + 1, 5)}" for i in range(4)]
    choices = {"text": options, "label": ["A", "B", "C", "D"]}
    return {
        "id": f"stand-in-{number}",
        "question": _words(number * 10, 23),
        "choices": choices,
        "answerKey": "ABCD"[number % 4],
    }


def _hellaswag(number: int) -> dict[str, object]:
    # HellaSwag, validation: a context has 40 words and an ending 21 on average
    return {
        "ind": number, "activity_label": "Stand-in", "ctx_a": _words(number * 10, 40), "ctx_b": "",
        "ctx": _words(number * 10, 40), "endings": [_words(number * 10 + i + 1, 21) for i in range(4)],
        "label": str(number % 4), "split": "val", "split_type": "indomain", "source_id": f"stand-in~{number}",
    }  # fmt: skip


def _finite(value: Any) -> Any:
    """JSON has no NaN: what could not be estimated is null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, list | tuple) else value


__all__ = ["HASH_CHARACTERS", "Planned", "data_or_stand_ins", "planned"]
