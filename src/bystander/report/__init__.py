"""Records in, pages and figures out. Computes nothing; no torch.

Altair, vl-convert and Jinja2 are imported by the functions that need them, so that the command line starts quickly.
"""

from bystander.report.board import write_board
from bystander.report.compare import write_compare
from bystander.report.figures import charts
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
    TrainingRows,
)
from bystander.report.write import write_report

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
    "TrainingRows",
    "charts",
    "write_board",
    "write_compare",
    "write_report",
]
