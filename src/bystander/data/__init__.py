"""Question sets: the built-in bank, ARC-Challenge, HellaSwag and files of one's own; their split and their overlap."""

from bystander.data.bank import OpenQuestion, load_bank, load_open_questions
from bystander.data.choice import ChoiceSet, describe_choice, draw_questions, load_choice
from bystander.data.similar import Overlap, overlap

__all__ = [
    "ChoiceSet",
    "OpenQuestion",
    "Overlap",
    "describe_choice",
    "draw_questions",
    "load_bank",
    "load_choice",
    "load_open_questions",
    "overlap",
]
