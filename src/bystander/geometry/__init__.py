"""Geometry: where personas stand in the model's hidden states, and the rivals of that similarity."""
