"""Geometry: where personas stand in the model's hidden states, and the baselines of that similarity."""
