"""The run directory: cells, tables, events, who holds it, how far it is."""
