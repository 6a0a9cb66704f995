"""The tables of an analysis, one file a table."""
