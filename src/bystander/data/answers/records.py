"""The record that every shape of answer file is read into."""

from __future__ import annotations

from dataclasses import dataclass

from bystander.core.records import Earlier
from bystander.data.turns import Turn


@dataclass(frozen=True, slots=True)
class AnswerPair:
    """A prompt with an answer that shows a behavior and one that does not, each text as it stands in the file.

    `prompt`: the turns before the answer, the user's last. `not_shown` is None until an answer is sampled for it.
    `topic` is "" where the file has none. `system`: the row's own system turn ("" is an empty one), None where it has
    none. `line`: its place in the file, from 1 (the row in Parquet).
    """

    id: str
    prompt: tuple[Turn, ...]
    shown: str
    not_shown: str | None
    topic: str
    system: str | None
    line: int

    @property
    def user(self) -> str:
        """The last user turn."""
        return self.prompt[-1].text

    @property
    def earlier(self) -> Earlier:
        """What stands before the last user turn: the row's system turn, and its turns by twos."""
        before = [turn.text for turn in self.prompt[:-1]]
        return Earlier(self.system, tuple(zip(before[::2], before[1::2], strict=True)))


def prompt_text(pair: AnswerPair) -> str:
    """All turns of the prompt in one text, to compare prompts by: a last turn such as "more" says nothing by itself."""
    return "\n\n".join(turn.text for turn in pair.prompt)
