"""A study cut into cells: its behaviors, probes, rows, audit and pre-registration, decided before anything runs."""
