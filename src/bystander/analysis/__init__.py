"""Estimates, intervals, tests, hypotheses and power. No torch."""

from bystander.analysis.analyze import analyze
from bystander.analysis.hypotheses import HYPOTHESES, Hypothesis, Threshold
from bystander.analysis.results import Analysis
from bystander.analysis.settings import AnalysisSettings
from bystander.analysis.table import analyze_table
from bystander.analysis.tables.phase import phase_of_table

__all__ = [
    "HYPOTHESES",
    "Analysis",
    "AnalysisSettings",
    "Hypothesis",
    "Threshold",
    "analyze",
    "analyze_table",
    "phase_of_table",
]
