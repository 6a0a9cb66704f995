"""Simulated studies of the real sizes, to see whether the statistics of bystander.analysis keep what they promise.

`python -m calibration` runs everything and writes docs/calibration.md; tests/calibration/test_checks.py runs a short one.
"""
