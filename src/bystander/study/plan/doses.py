"""What a dose, `train_to`, adds to the cells of trainings."""

from __future__ import annotations

from collections.abc import Mapping

from bystander.study.config.schema import StudySettings
from bystander.study.plan.cell import Training


def dose_of(
    training: Training, spec: StudySettings, decided: Mapping[str, str], trained: Mapping[Training, str]
) -> tuple[list[object], tuple[str, ...]]:
    """What of a dose decides a training's numbers, and the cells that it waits for: a benign training ends at the step of
    its contrastive twin. Nothing where the study trains to the end."""
    if spec.train_to is None:
        return [], ()
    twin = training.twin
    keys = (trained[twin],) if twin else ()
    return [spec.train_to.model_dump(mode="json"), decided[spec.train_to.outcome[0]], *keys], keys
