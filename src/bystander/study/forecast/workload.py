"""How much work each cell of a plan is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bystander.core.records import Context
from bystander.core.work import CHARACTERS_PER_TOKEN, TEMPLATE_TOKENS, Count, Work, prefix_tokens
from bystander.geometry.base import OF_ANSWERS
from bystander.probe.base import CheckedProbe
from bystander.study.plan.cells import Cell, Plan


@dataclass(frozen=True)
class Counter:
    """Counts a text's tokens. `exact`: with the model's own tokenizer; `how` says so to a reader."""

    count: Count
    exact: bool
    how: str


def counter_for(model: str) -> Counter:
    """The model's tokenizer if it is on this machine, else characters over a constant. Nothing is downloaded."""
    try:
        tokenizer = _tokenizer(model)
    except Exception:  # whatever is wrong with the files, an estimate still serves
        tokenizer = None
    if tokenizer is None:
        per = CHARACTERS_PER_TOKEN
        how = f"estimated at {per} characters a token: the tokenizer of {model} is not on this machine"
        return Counter(lambda text: max(1, round(len(text) / per)) if text else 0, False, how)
    counted: dict[str, int] = {}

    def count(text: str) -> int:
        if text not in counted:
            counted[text] = tokenizer(text)
        return counted[text]

    return Counter(count, True, f"counted with the tokenizer of {model}")


@cache
def _tokenizer(model: str) -> Callable[[str], int] | None:
    """Counts a text's tokens; None where the tokenizer is not on this machine. A fast tokenizer is read by itself: a plan
    has no other use for transformers, which takes seconds to import."""
    from bystander.lm import embedded

    if model.lower().endswith(".gguf"):  # it has a tokenizer once it is converted
        return None
    folder = embedded.cache_dir() / "models" / embedded.DIRECTORY if model == embedded.NAME else Path(model)
    if model == embedded.NAME and not folder.is_dir():
        return None
    if folder.is_dir():
        file: object = folder / "tokenizer.json"
    else:
        from huggingface_hub import try_to_load_from_cache

        file = try_to_load_from_cache(model, "tokenizer.json")
    if isinstance(file, str | Path) and Path(file).is_file():
        from tokenizers import Tokenizer

        fast = Tokenizer.from_file(str(file))
        return lambda text: len(fast.encode(text, add_special_tokens=False).ids)
    from transformers import AutoTokenizer

    slow = AutoTokenizer.from_pretrained(model, local_files_only=True)
    return lambda text: len(slow(text, add_special_tokens=False)["input_ids"])


class Workload:
    """The work of a plan's cells. Cells that run the same probe under the same personas are counted once."""

    def __init__(self, plan: Plan, counter: Counter) -> None:
        self.plan, self.counter = plan, counter
        self._probed: dict[tuple[str, str], Work] = {}
        self._rows: dict[int, float] = {}

    def of(self, cell: Cell) -> Work:
        """The work of one cell."""
        plan, counter = self.plan, self.counter
        if cell.kind == "geometry":
            questions = plan.parts.open_questions
            users = sum(counter.count(text) + TEMPLATE_TOKENS for text in questions)
            contexts = plan.contexts
            prompts = prefix_tokens(contexts, counter.count) * len(questions) + users * len(contexts)
            return self._geometry(prompts)
        if cell.kind == "evaluate":
            return self._probe(cell.probe or "", cell.group, plan.contexts_of(cell))
        if cell.kind == "answers":
            return self._answers(cell)
        if cell.kind == "mode check":
            probe = plan.probes[cell.probe or ""]
            assert isinstance(probe, CheckedProbe)
            return probe.check_work(plan.contexts, counter.count)
        return self._training(cell) if cell.kind == "train" else Work()

    def _geometry(self, prompts: float) -> Work:
        """`prompts`: tokens of all questions under all personas."""
        plan, geometry = self.plan, self.plan.study.spec.geometry
        predictors, personas = plan.parts.predictors(), len(plan.contexts)
        work = Work(scored=prompts)
        said = len(plan.parts.open_questions) * personas * geometry.answer_tokens
        if predictors.need(*OF_ANSWERS):
            work += Work(scored=prompts + said, sampled=said)
        if predictors.need("answer_logprobs"):  # each persona's answers by itself and by each source, and the reverse
            work += Work(scored=prompts + said * (1 + 2 * len(plan.study.spec.sources)))
        turns = sum(self.counter.count(turn.user + turn.shown) + TEMPLATE_TOKENS for turn in plan.parts.turns)
        prefixes = prefix_tokens(plan.contexts, self.counter.count) * len(plan.parts.turns)
        if predictors.need("training_gradients"):
            work += Work(trained=prefixes + turns * personas)
        if predictors.need("training_direction"):
            work += Work(scored=2 * (prefixes / personas + turns) * len(plan.study.spec.sources))
        return work

    def _answers(self, cell: Cell) -> Work:
        behavior = self.plan.parts.to_write()[cell.behavior]
        if not isinstance(behavior.settings.not_shown, str):
            return Work()  # a provider writes them
        pairs = behavior.pending()
        read = sum(self.counter.count(pair.user) + TEMPLATE_TOKENS for pair in pairs)
        return Work(scored=read, sampled=len(pairs) * behavior.settings.own.max_tokens)

    def _probe(self, name: str, group: str, contexts: Sequence[Context]) -> Work:
        if (name, group) not in self._probed:
            self._probed[name, group] = self.plan.probes[name].work(contexts, self.counter.count)
        return self._probed[name, group]

    def _training(self, cell: Cell) -> Work:
        plan = self.plan
        assert cell.training is not None
        design, recipe = plan.designs[cell.training], plan.recipes[cell.training]
        if id(design) not in self._rows:
            texts = [text for row in design.rows for text in (row.context.system or "", row.user, row.completion)]
            self._rows[id(design)] = sum(map(self.counter.count, texts)) + TEMPLATE_TOKENS * len(design.rows)
        work = Work(trained=self._rows[id(design)] * recipe.epochs)
        asked = plan.study.spec.train_to
        if asked is not None and cell.training.arm != "benign":
            readings = 1 + math.ceil(recipe.steps(len(design.rows)) / asked.every)  # of the source alone
            one = self._probe(asked.outcome[0], "dose", plan.contexts[:1])
            work = sum([one] * readings, work)
        if plan.probed_in_training(cell):
            checkpoints = plan.study.spec.checkpoints
            some = plan.contexts[: checkpoints.personas]  # which ones is the geometry's to say; any tell the cost
            for name in plan.probes:
                for _ in checkpoints.fractions():
                    work += self._probe(name, "checkpoint", some)
        return work
