"""Judging free-form answers: requests, batches, what they cost, and the answers that are kept."""
