"""The record that every shape of answer file is read into."""

from __future__ import annotations

from dataclasses import dataclass

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
    def earlier(self) -> tuple[Turn, ...]:
        """The turns before the last user turn; none in a prompt of one turn."""
        return self.prompt[:-1]


def prompt_text(pair: AnswerPair) -> str:
    """All turns of the prompt in one text, to compare prompts by: a last turn such as "more" says nothing by itself."""
    return "\n\n".join(turn.text for turn in pair.prompt)
