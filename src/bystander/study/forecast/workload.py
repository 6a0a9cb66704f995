"""How much work a cell is, in tokens and bytes: what a forecast multiplies with the speed of a machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from bystander.core.records import Context
from bystander.probe.base import Probe
from bystander.probe.choice import ChoiceProbe, ProbedSet
from bystander.probe.judged import JudgedProbe
from bystander.probe.margin import MarginProbe
from bystander.probe.marker import MarkerProbe

if TYPE_CHECKING:
    from bystander.study.plan.cells import Cell, Plan

CHARACTERS_PER_TOKEN = 4.2  # English prose under byte-pair vocabularies of 50k to 200k, as in probe/judge_cost
TEMPLATE_TOKENS = 12  # what a chat template puts around a system and a user turn (ChatML: 2 x 5 and the answer's start)
BYTES_PER_MEASUREMENT = 12  # Parquet, zstd: mostly repeated columns; measured on a quickstart run
BYTES_PER_SAMPLED_TOKEN = 6  # completions and their prompts, JSONL under zstd
JUDGE_TEMPLATES = 2  # aligned and coherent
JUDGE_PROMPT_CHARACTERS = 1_100  # of a judge prompt without question and answer (Betley et al. 2025: 1,000 to 1,200)


@dataclass(frozen=True, slots=True)
class Work:
    """Tokens scored (a context's prefix once, then the items behind it), trained (all tokens of all epochs), sampled (to
    the full length allowed); judge calls; rows measured. `bytes_written` without the adapter."""

    scored: float = 0
    trained: float = 0
    sampled: float = 0
    judged: float = 0
    judged_tokens: float = 0
    measurements: float = 0

    def __add__(self, other: Work) -> Work:
        return Work(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Work)))

    @property
    def bytes_written(self) -> float:
        """Bytes of measurements and completions."""
        return self.measurements * BYTES_PER_MEASUREMENT + self.sampled * BYTES_PER_SAMPLED_TOKEN


@dataclass(frozen=True)
class Counter:
    """Counts a text's tokens. `exact`: with the model's own tokenizer; `how` says so to a reader."""

    count: Callable[[str], int]
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
            users = sum(counter.count(text) + TEMPLATE_TOKENS for text in plan.open_questions)
            texts, contexts = len(plan.open_questions), plan.contexts
            return Work(scored=_prefixes(contexts, counter) * texts + users * len(contexts))
        if cell.kind == "evaluate":
            return self._probe(cell.probe or "", cell.group, plan.contexts_of(cell))
        if cell.kind == "instrument":
            probe = plan.probes[cell.probe or ""]
            assert isinstance(probe, ChoiceProbe)
            return Work(scored=_choice_tokens(probe, [plan.contexts[0]], counter, check=True))
        return self._training(cell) if cell.kind == "train" else Work()

    def _probe(self, name: str, group: str, contexts: Sequence[Context]) -> Work:
        if (name, group) not in self._probed:
            self._probed[name, group] = probe_work(self.plan.probes[name], contexts, self.counter)
        return self._probed[name, group]

    def _training(self, cell: Cell) -> Work:
        plan = self.plan
        assert cell.training is not None
        design, recipe = plan.designs[cell.training], plan.recipes[cell.training]
        if id(design) not in self._rows:
            texts = [text for row in design.rows for text in (row.context.system or "", row.user, row.completion)]
            self._rows[id(design)] = sum(map(self.counter.count, texts)) + TEMPLATE_TOKENS * len(design.rows)
        work = Work(trained=self._rows[id(design)] * recipe.epochs)
        if plan.probed_in_training(cell):
            checkpoints = plan.study.spec.checkpoints
            some = plan.contexts[: checkpoints.personas]  # which ones is the geometry's to say; any tell the cost
            for name in plan.probes:
                for _ in checkpoints.fractions():
                    work += self._probe(name, "checkpoint", some)
        return work


def _prefixes(contexts: Sequence[Context], counter: Counter) -> int:
    return sum(counter.count(context.system or "") + TEMPLATE_TOKENS for context in contexts)


def probe_work(probe: Probe, contexts: Sequence[Context], counter: Counter) -> Work:
    """The work of one run of a probe under `contexts`. A probe of a kind that is not known here counts as none."""
    prefixes, n = _prefixes(contexts, counter), len(contexts)
    if isinstance(probe, MarkerProbe):
        s = probe.settings
        items = sum(
            counter.count(q.text) + counter.count(q.options[q.answer] + probe.tail) for q in probe.questions[: s.questions]
        )  # fmt: skip
        sampled = n * s.sampled * s.samples
        return Work(
            scored=prefixes + n * items, sampled=sampled * s.max_tokens, measurements=n * s.questions * 2 + sampled
        )
    if isinstance(probe, ChoiceProbe):
        asked = sum(len(one.questions) * _share(one) for one in probe.sets) * n
        return Work(scored=prefixes + _choice_tokens(probe, contexts, counter), measurements=asked * 2.5)
    if isinstance(probe, MarginProbe):
        pairs = probe.read()
        items = sum(counter.count(text) for p in pairs for text in (p.question, p.aligned, p.misaligned))
        return Work(scored=prefixes + n * items, measurements=n * len(pairs) * 2)
    if isinstance(probe, JudgedProbe):
        return _judged_work(probe, contexts, counter)
    return Work()


def _choice_tokens(probe: ChoiceProbe, contexts: Sequence[Context], counter: Counter, check: bool = False) -> float:
    """Question and choices of every item: the same count whether the choices stand in the prompt or are scored. Where
    each context is asked its own share of a set, the share's mean length is taken."""
    total = 0.0
    for one in [probe.check_on] if check and probe.check_on else probe.sets:
        tokens = sum(counter.count(q.text) + sum(map(counter.count, q.options)) for q in one.questions)
        total += tokens * len(contexts) * _share(one)
    return total


def _share(one: ProbedSet) -> float:
    """The share of a set's questions that one context is asked."""
    return min(1.0, one.each / len(one.questions)) if one.each else 1.0


def _judged_work(probe: JudgedProbe, contexts: Sequence[Context], counter: Counter) -> Work:
    requests = probe.requests(contexts)
    sampled = len(requests) * probe.settings.max_tokens
    prompts = sum(counter.count(r.user) + TEMPLATE_TOKENS for r in requests)
    if probe.judge is None:
        return Work(scored=prompts, sampled=sampled)
    calls = len(requests) * JUDGE_TEMPLATES
    answer = probe.settings.max_tokens * CHARACTERS_PER_TOKEN
    asked = sum(len(r.user) + answer + JUDGE_PROMPT_CHARACTERS for r in requests) * JUDGE_TEMPLATES
    return Work(
        scored=prompts, sampled=sampled, judged=calls, judged_tokens=asked / CHARACTERS_PER_TOKEN, measurements=len(requests) * 5
    )  # fmt: skip
