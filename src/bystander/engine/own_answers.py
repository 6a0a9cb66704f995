"""Answers that a model writes before anything is trained, where a file has only those that show the behavior."""

from __future__ import annotations

from collections.abc import Sequence

from bystander.behaviors.answers import AnswersBehavior
from bystander.core.errors import DataError, JudgeError, few_names
from bystander.core.files import compressed_lines, read_lines, write_bytes
from bystander.core.hashing import seed_for
from bystander.core.records import Finding
from bystander.data.answers import AnswerPair, Provider
from bystander.judge.secure_answers import SecureSender, secure_settings
from bystander.lm.embedded import cache_dir
from bystander.lm.model import LoadedModel
from bystander.lm.sample import SampleRequest, sample
from bystander.personas import bare_context
from bystander.study.plan.cells import Cell, Plan
from bystander.study.store.cell_dir import CellDir
from bystander.study.store.run_dir import RunDir

FILE = "answers.jsonl.zst"
TOKENS_AN_ANSWER = 160.0  # of a provider, for the estimate; replaced by what it reported


def write_answers(behavior: AnswersBehavior, loaded: LoadedModel | None, directory: CellDir) -> None:
    """Sample the behavior's missing answers and keep them in the cell's folder. `loaded` None: a provider writes them.
    Raises DataError where some prompts get none, JudgeError where the provider gives none."""
    pairs = behavior.pending()
    provider = behavior.settings.not_shown
    if isinstance(provider, Provider):
        rows = _from_provider(behavior, provider, pairs)
    else:
        assert loaded is not None  # the untrained model
        rows = _sampled(behavior, loaded, pairs)
    write_bytes(directory.path / FILE, compressed_lines(rows))


def _sampled(behavior: AnswersBehavior, loaded: LoadedModel, pairs: Sequence[AnswerPair]) -> list[dict[str, object]]:
    own, context = behavior.settings.own, bare_context("default")
    left = {pair.id: pair for pair in pairs}
    found: dict[str, dict[str, object]] = {}
    for draw in range(own.draws):
        requests = [
            SampleRequest(
                pair.id,
                pair.earlier.under(context),
                pair.user,
                draw,
                seed_for("own answers", own.seed, pair.id, draw),
                pair.id,
            )
            for pair in left.values()
        ]
        for batch in (
            sample(loaded, requests, temperature=own.temperature, max_tokens=own.max_tokens) if requests else ()
        ):
            for one in batch:
                if one.text.strip() and one.text.strip() != left[one.item].shown.strip():
                    cut = one.finish_reason == "length"
                    found[one.item] = {
                        "id": one.item,
                        "answer": one.text,
                        "cut": cut,
                        "draw": draw,
                        "prompt": one.prompt,
                    }
                    del left[one.item]
    if left:
        raise DataError(
            f"behavior {behavior.name!r}: the untrained model gave {len(left)} of {len(pairs)} prompts no answer of its own in "
            f"{own.draws} draws ({few_names(list(left))}); raise own.draws or own.temperature, or remove these rows"
        )
    return [found[pair.id] for pair in pairs]


def _from_provider(
    behavior: AnswersBehavior, provider: Provider, pairs: Sequence[AnswerPair]
) -> list[dict[str, object]]:
    settings = secure_settings(
        provider.model, dollars=provider.dollars, base_url=provider.base_url, key_env=provider.key_env, batch=provider.batch
    )  # fmt: skip
    source = f"{behavior.path()} {provider.instruction}"
    sender = SecureSender(settings, cache_dir() / "judge.sqlite", source, TOKENS_AN_ANSWER, behavior.folder)
    more = f"\n\n{provider.instruction}" if provider.instruction else ""
    prompts = {pair.id: pair.earlier.transcript(pair.user) + more for pair in pairs}
    sender.estimate(prompts)
    texts: dict[str, str] = {}
    reasons: dict[str, str] = {}
    for name, text, reason in sender(prompts):
        if text is not None and text.strip():
            texts[name] = text
        else:
            reasons[name] = reason or "an empty answer"
    if reasons:
        first = next(iter(reasons.values()))
        raise JudgeError(
            f"behavior {behavior.name!r}: {provider.model} wrote no answer to {len(reasons)} of {len(pairs)} prompts "
            f"({few_names(list(reasons))}); the first: {first}. What was answered is kept: start again"
        )
    return [{"id": pair.id, "answer": texts[pair.id], "cut": False} for pair in pairs]


def filled(plan: Plan, run: RunDir) -> Plan:
    """The plan with the answers that models wrote, if all of them are there; the plan as it is where some are not."""
    cells = plan.of_kind("answers")
    if not cells or plan.parts.own is not None or not all(run.cell(c.name, c.key).complete for c in cells):
        return plan
    own = {cell.behavior: {str(row["id"]): str(row["answer"]) for row in _rows(cell, run)} for cell in cells}
    return plan.with_answers(own)


def cut_findings(plan: Plan, run: RunDir) -> list[Finding]:
    """A warning for each behavior of which own answers were cut off: a model that is trained on them learns not to end."""
    findings: list[Finding] = []
    for cell in plan.of_kind("answers"):
        if not run.cell(cell.name, cell.key).complete:
            continue
        rows = _rows(cell, run)
        cut = [str(row["id"]) for row in rows if row["cut"]]
        if cut:
            message = (
                f"{cell.behavior}: {len(cut)} of {len(rows)} answers that the model wrote were cut at own.max_tokens"
            )
            findings.append(Finding("warning", "own answers", message, tuple(cut[:8])))
    return findings


def _rows(cell: Cell, run: RunDir) -> list[dict[str, object]]:
    return list(read_lines(run.cell(cell.name, cell.key).path / FILE))
