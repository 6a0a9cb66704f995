"""The study: the one caller of all stages, and the only writer."""
