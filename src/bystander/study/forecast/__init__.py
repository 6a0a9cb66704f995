"""What can be known before a study runs: open settings, cost, power, review."""
