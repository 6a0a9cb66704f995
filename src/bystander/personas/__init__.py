"""The 111 built-in personas, files of one's own in the same form, and the contexts that stand before a user turn."""

from bystander.personas.contexts import bare_context, context_of
from bystander.personas.load import SOURCES, load_personas

__all__ = ["SOURCES", "bare_context", "context_of", "load_personas"]
