"""Statistics: intervals, ranks, resampling, multiplicity, power, and what claims rest on. Arrays in, records out."""
