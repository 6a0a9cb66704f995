"""Running a study: the loop, the executors, the gate, the caps, and the work of one cell."""
