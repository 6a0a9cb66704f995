"""Which trainings a worker does in joint passes, and how many at once."""

from __future__ import annotations

from collections.abc import Callable, Hashable

from bystander.engine.executor import Executor
from bystander.engine.scheduler import Together
from bystander.study.config.blocks import ExecutorSettings
from bystander.study.config.schema import StudySettings
from bystander.study.forecast.throughput import TOGETHER, Shape, device_here, shape_of
from bystander.study.plan.cells import Plan
from bystander.train.many_room import LEAST_TOKENS, PARAMETER_BYTES, SPARE

HALF = 2  # bytes of a number in bfloat16


def trainings_together(spec: StudySettings, executor: Executor, plan: Callable[[], Plan]) -> Together:
    """What the scheduler may start as one attempt. `plan` gives the plan as it stands: a gate changes it."""

    def kind(key: str) -> Hashable | None:
        cell = plan().by_key.get(key)
        return None if cell is None else plan().together(cell)

    return Together(kind, most_together(spec, executor))


def most_together(spec: StudySettings, executor: Executor) -> int:
    """How many trainings an attempt may have: what the study says; else on a GPU in bfloat16 as many as memory holds.
    The plain forward pass (a CPU, float32) gains nothing from joint passes: there each is trained alone."""
    settings: ExecutorSettings = spec.executor
    if settings.together != "auto":
        return settings.together
    on_gpu = executor.on_gpu if executor.on_gpu is not None else device_here() != "cpu"
    if not on_gpu or spec.model.device == "cpu" or spec.model.dtype == "float32":
        return 1
    free = executor.worker_bytes()
    return TOGETHER if free is None else min(TOGETHER, fitting(shape_of(spec.model.name), spec.recipe.lora.rank, free))


def fitting(shape: Shape, rank: int, free: float) -> int:
    """Adapters of that rank that fit beside the model into so many bytes of a GPU with room for a pass; at least 1. As
    `train.many_room` counts, by the model's shape alone: the model is not loaded yet."""
    a_token = shape.layers * (8 * shape.hidden + 4 * shape.inner) * HALF
    an_adapter = shape.adapter_bytes(rank, 1) * (PARAMETER_BYTES + 2 * HALF)
    left = (free - shape.parameters * HALF) * SPARE - LEAST_TOKENS * a_token
    return max(1, int(left / an_adapter))
