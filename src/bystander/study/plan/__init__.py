"""What can be known before a study runs: open questions, cost, power, review."""
