"""Statistics: intervals, ranks, resampling, multiplicity, power. Arrays in, records out."""
