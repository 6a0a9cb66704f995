"""Probes: ways of measuring a model under a context. The same code before, during and after training."""
