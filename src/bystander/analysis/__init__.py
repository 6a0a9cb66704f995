"""Estimates, intervals, tests, hypotheses and power. No torch."""

from bystander.analysis.results import Analysis
from bystander.analysis.settings import Settings
from bystander.analysis.table import analyze_table
from bystander.analysis.whole import analyze

__all__ = ["Analysis", "Settings", "analyze", "analyze_table"]
