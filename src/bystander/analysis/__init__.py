"""Estimates, intervals, tests, hypotheses and power. No torch."""
