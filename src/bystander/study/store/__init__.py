"""The run directory: cells, tables, events, kept files, who holds it."""
