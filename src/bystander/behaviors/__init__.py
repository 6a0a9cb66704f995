"""Behaviors: what is coupled to a source persona, as examples to train on and items to probe."""
