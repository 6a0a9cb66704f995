"""The 111 built-in personas, files of one's own in the same form, and the contexts that stand before a user turn."""

from bystander.personas.contexts import (
    bare_context,
    built_in_contexts,
    context_of,
    context_sets,
    hunted_contexts,
    laid_over,
)
from bystander.personas.load import SOURCES, load_personas

__all__ = [
    "SOURCES", "bare_context", "built_in_contexts", "context_of", "context_sets", "hunted_contexts", "laid_over", "load_personas",
]  # fmt: skip
