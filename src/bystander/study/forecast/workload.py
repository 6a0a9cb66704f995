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
from bystander.train.recipe import inner_checkpoints


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
        how = f"estimated at {per} characters a token: no tokenizer file of {model} is at hand"
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

    if model.lower().endswith(".gguf"):
        return _tokenizer_of_gguf(model)
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


def _tokenizer_of_gguf(model: str) -> Callable[[str], int] | None:
    """From the header alone: the weights are not read for it."""
    from bystander.lm.gguf_header import local_file, read_header

    file = local_file(model)
    if file is None:
        return None
    from bystander.lm.gguf_tokenizer import tokenizer_of

    rebuilt = tokenizer_of(read_header(file).fields)
    return lambda text: len(rebuilt(text, add_special_tokens=False)["input_ids"])


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
            contexts = plan.parts.compared
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
        if cell.kind == "data":
            return Work(designed=sum(len(design.rows) for design in plan.parts.designs()))
        if cell.kind == "gate":
            return Work(gathered=sum(self.of(plan.by_key[need]).measurements for need in cell.needs))
        return self._training(cell)

    def _geometry(self, prompts: float) -> Work:
        """`prompts`: tokens of all questions under all personas."""
        plan, geometry = self.plan, self.plan.study.spec.geometry
        predictors, personas = plan.parts.predictors(), len(plan.parts.compared)
        work = Work(scored=prompts, distributions=len(plan.parts.open_questions) * personas)
        said = len(plan.parts.open_questions) * personas * geometry.answer_tokens
        if predictors.need(*OF_ANSWERS):
            work += Work(scored=prompts + said, sampled=said)
        if predictors.need("answer_logprobs"):  # each persona's answers by itself and by each source, and the reverse
            work += Work(scored=prompts + said * (1 + 2 * len(plan.study.spec.sources)))
        turns = sum(self.counter.count(turn.user + turn.shown) + TEMPLATE_TOKENS for turn in plan.parts.turns)
        prefixes = prefix_tokens(plan.parts.compared, self.counter.count) * len(plan.parts.turns)
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
            texts = [text for row in design.rows for text in (row.context.text, row.user, row.completion)]
            self._rows[id(design)] = sum(map(self.counter.count, texts)) + TEMPLATE_TOKENS * len(design.rows)
        steps = recipe.steps(len(design.rows))
        work = Work(trained=self._rows[id(design)] * recipe.epochs, steps=steps)
        asked = plan.study.spec.train_to
        if asked is not None and cell.training.arm != "benign":
            readings = 1 + math.ceil(steps / asked.every)  # of the source alone
            one = self._probe(asked.outcome[0], "dose", plan.contexts[:1])
            work = sum([one] * readings, work)
        if plan.probed_in_training(cell):
            checkpoints = plan.study.spec.checkpoints
            some = plan.contexts[: checkpoints.personas]  # which ones is the geometry's to say; any tell the cost
            probed = inner_checkpoints(checkpoints.fractions(), recipe.steps(len(design.rows)))
            for name in plan.probes:
                for _ in probed:
                    work += self._probe(name, "checkpoint", some)
                    if plan.parts.beside:
                        work += self._probe(name, "contexts", plan.parts.beside)
        return work
