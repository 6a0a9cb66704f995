"""Tasks for Inspect: a hosted model measured under personas by the items, prompts and scorers of the probes.

Nothing here needs the model's weights or torch. The tasks need Inspect: `pip install 'bystander[inspect]'`.
"""
