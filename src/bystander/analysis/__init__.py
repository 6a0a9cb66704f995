"""Estimates, intervals, tests, hypotheses and power. No torch."""

from bystander.analysis.analyze import analyze
from bystander.analysis.hypotheses import HYPOTHESES, Hypothesis, Threshold
from bystander.analysis.results import Analysis
from bystander.analysis.settings import Settings
from bystander.analysis.table import analyze_table
from bystander.analysis.tables.checks import phase_of_table

__all__ = [
    "HYPOTHESES",
    "Analysis",
    "Hypothesis",
    "Settings",
    "Threshold",
    "analyze",
    "analyze_table",
    "phase_of_table",
]
