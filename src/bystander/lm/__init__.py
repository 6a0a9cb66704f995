"""Load a model and its adapters, render tokens, score, sample, read hidden states: everything that touches a GPU but
training."""
