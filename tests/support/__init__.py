"""What several tests use. No test imports from a test."""
