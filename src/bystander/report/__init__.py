"""Records in, pages and figures out. Computes nothing; no torch."""

from bystander.report.inputs import (
    BOARD_STATES,
    BoardCard,
    BoardEvent,
    ContextRendering,
    CostLine,
    Declaration,
    GateResult,
    ReadCompletion,
    ReportInput,
    TrainingCurve,
)

__all__ = [
    "BOARD_STATES",
    "BoardCard",
    "BoardEvent",
    "ContextRendering",
    "CostLine",
    "Declaration",
    "GateResult",
    "ReadCompletion",
    "ReportInput",
    "TrainingCurve",
]
