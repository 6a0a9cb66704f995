"""A study cut into cells: its behaviors, probes, rows, audit, and how much work each cell is."""
