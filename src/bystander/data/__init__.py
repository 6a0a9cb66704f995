"""Question sets: the built-in bank, ARC-Challenge, HellaSwag and files of one's own; their split and their overlap."""

from bystander.data.bank import OpenQuestion, load_bank, load_open_questions
from bystander.data.choice import ChoiceSet, describe_choice, draw_questions, load_choice, read_choice
from bystander.data.choice_files import write_choice_files, write_jsonl
from bystander.data.choice_text import AnswerForm, choice_answer, choice_user
from bystander.data.similar import Overlap, overlap
from bystander.data.split import pick_wrong, split_half

__all__ = [
    "AnswerForm",
    "ChoiceSet",
    "OpenQuestion",
    "Overlap",
    "choice_answer",
    "choice_user",
    "describe_choice",
    "draw_questions",
    "load_bank",
    "load_choice",
    "load_open_questions",
    "overlap",
    "pick_wrong",
    "read_choice",
    "split_half",
    "write_choice_files",
    "write_jsonl",
]
