"""Benchmarks: a plain way and ours side by side."""
