"""Statistics as pure functions: arrays in, records out; no tables, no files."""
