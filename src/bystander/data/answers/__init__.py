"""Answer pairs from files as people have them: a prompt, an answer that shows a behavior, and one that does not."""

from bystander.data.answers.facts import PairFacts, describe
from bystander.data.answers.read import fill_not_shown, needs_not_shown, read_answer_pairs
from bystander.data.answers.records import AnswerPair, prompt_text
from bystander.data.answers.settings import OWN_ANSWERS, AnswerFileSettings, Provider
from bystander.data.answers.split import split_held_out, topics_in_turn

__all__ = [
    "OWN_ANSWERS",
    "AnswerFileSettings",
    "AnswerPair",
    "PairFacts",
    "Provider",
    "describe",
    "fill_not_shown",
    "needs_not_shown",
    "prompt_text",
    "read_answer_pairs",
    "split_held_out",
    "topics_in_turn",
]
