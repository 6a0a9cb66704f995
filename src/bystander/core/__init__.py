"""Errors, records that cross a stage, stable hashing and seeds. Imports nothing of the project; no torch."""
