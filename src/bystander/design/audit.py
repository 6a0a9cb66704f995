"""The audit: what is wrong with a design, found before anything is trained.

Every check is a function from what it needs to findings that name the rows; `audit` runs them all. An error stops a
run. The checks are the faults that have sunk such studies, one each.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from bystander.core.errors import DesignError, ModelError, few_names
from bystander.core.records import Context, Finding
from bystander.data import overlap
from bystander.design.arms import Design
from bystander.design.render import Rendered, label, named, render
from bystander.design.token_checks import cannot_render, control_tokens, joint_tokenization, white_space_trimmed
from bystander.lm.tokens import EndOfTurn, Tokenizer, render_text, template_of

__all__ = ["Rendered", "audit", "refuse", "render"]


def audit(
    rendered: Sequence[Rendered],
    tokenizer: Tokenizer,
    contexts: Sequence[Context],
    probe_texts: Mapping[str, str],
    *,
    max_length: int,
    end_of_turn: EndOfTurn,
) -> list[Finding]:
    """All findings over the designs of a study, errors first.

    `contexts` are rendered and checked to be what they are named; `probe_texts` (item id -> user turn) are held
    against the training rows; `max_length` is the model's window in tokens.
    """
    findings = cannot_render(tokenizer, contexts, max_length)
    findings += contexts_render_as_named(tokenizer, contexts)
    for one in rendered:
        findings += two_targets(one)
        findings += empty_or_duplicate(one.design)
        findings += rows_without_loss(one)
        findings += too_long(one, max_length)
        findings += tokens_changed(one, tokenizer)
        findings += marker_shares_a_token(one)
        findings += roles_counted_right(one.design)
    designs = [one.design for one in rendered]
    findings += control_tokens(designs, tokenizer, contexts, probe_texts)
    findings += loss_mask(rendered, end_of_turn)
    findings += joint_tokenization(rendered)
    findings += white_space_trimmed(designs, tokenizer)
    findings += train_probe_overlap(designs, probe_texts)
    findings += unequal_ratios(designs)
    findings += benign_differs(designs)
    order = {"error": 0, "warning": 1, "info": 2}
    return sorted(findings, key=lambda finding: order[finding.level])


def refuse(findings: Iterable[Finding]) -> None:
    """Raises DesignError if there is an error among the findings, naming all of them."""
    errors = [finding for finding in findings if finding.level == "error"]
    if errors:
        lines = "\n".join(
            f"  - {e.check}: {e.message}" + (f" [{', '.join(e.rows[:3])}]" if e.rows else "") for e in errors
        )
        raise DesignError(
            f"the audit refuses this design ({len(errors)} error{'s' * (len(errors) != 1)}):\n{lines}\n`bystander audit` shows all findings"
        )


def two_targets(one: Rendered) -> list[Finding]:
    """A rendered prompt that is trained towards two different completions teaches a coin toss."""
    by_prompt: dict[tuple[int, ...], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for row, tokens in zip(one.design.rows, one.rows, strict=True):
        by_prompt[tuple(tokens.ids[: tokens.prompt_tokens])][row.completion].append(row.id)
    bad = [ids for targets in by_prompt.values() if len(targets) > 1 for group in targets.values() for ids in group]
    if not bad:
        return []
    prompts = sum(len(targets) > 1 for targets in by_prompt.values())
    message = f"{label(one.design)}: {prompts} rendered prompts have two different completions"
    return [Finding("error", "two targets", message, named(bad))]


def empty_or_duplicate(design: Design) -> list[Finding]:
    """Empty prompts or completions are errors; the same row twice is a warning, since it weighs double."""
    findings: list[Finding] = []
    empty = [row.id for row in design.rows if not row.user.strip() or not row.completion.strip()]
    if empty:
        message = f"{label(design)}: {len(empty)} rows have an empty user turn or completion"
        findings.append(Finding("error", "empty rows", message, named(empty)))
    seen: Counter[tuple[object, ...]] = Counter()
    twice: list[str] = []
    for row in design.rows:
        key = (row.context.kind, *row.context.content, row.user, row.completion)
        seen[key] += 1
        if seen[key] == 2:
            twice.append(row.id)
    if twice:
        message = f"{label(design)}: {len(twice)} rows stand twice or more"
        findings.append(Finding("warning", "duplicate rows", message, named(twice)))
    return findings


def rows_without_loss(one: Rendered) -> list[Finding]:
    """Rows of which no token is in the loss."""
    without = [row.id for row, tokens in zip(one.design.rows, one.rows, strict=True) if not any(tokens.loss)]
    if not without:
        return []
    message = f"{label(one.design)}: {len(without)} of {len(one.rows)} rows have no token in the loss"
    # `loss: marker` leaves negatives without loss on purpose: they then teach nothing, which must be seen.
    unmarked = {row.id for row in one.design.rows if not row.marker}
    expected = set(without) == unmarked and len(without) < len(one.rows)
    return [Finding("warning" if expected else "error", "rows without loss", message, named(without))]


def loss_mask(rendered: Sequence[Rendered], end_of_turn: EndOfTurn) -> list[Finding]:
    """The counts that a reader needs to see, loss tokens per row and the end of turn; designs that agree share a note."""
    designs: dict[str, list[str]] = defaultdict(list)
    for one in rendered:
        counts = [sum(tokens.loss) for tokens in one.rows]
        if counts:
            spread = f"min {min(counts)}, mean {sum(counts) / len(counts):.1f}, max {max(counts)}"
            designs[f"end of turn {end_of_turn.replace('_', ' ')}; loss tokens per row {spread}"].append(
                label(one.design)
            )
    return [Finding("info", "loss mask", f"{few_names(labels)}: {message}") for message, labels in designs.items()]


def too_long(one: Rendered, max_length: int) -> list[Finding]:
    """Nothing is truncated: a row longer than the model's window is an error."""
    long = [
        f"{row.id} ({len(tokens.ids)} tokens)"
        for row, tokens in zip(one.design.rows, one.rows, strict=True)
        if len(tokens.ids) > max_length
    ]
    if not long:
        return []
    message = f"{label(one.design)}: {len(long)} rows are longer than the window of {max_length} tokens and would be truncated"
    return [Finding("error", "truncated rows", message, named(long))]


def tokens_changed(one: Rendered, tokenizer: Tokenizer) -> list[Finding]:
    """What the model is trained on must decode to the completion as written: no stripped space, no changed marker."""
    changed: list[str] = []
    opening = template_of(tokenizer).answer_start
    for row, tokens in zip(one.design.rows, one.rows, strict=True):
        text = tokenizer.decode(tokens.ids[tokens.prompt_tokens : tokens.prompt_tokens + tokens.completion_tokens])
        text = text.removeprefix("" if row.context.prefix else opening)
        if text != row.completion:
            changed.append(f"{row.id}: {row.completion[-24:]!r} became {text[-24:]!r}")
    if not changed:
        return []
    message = f"{label(one.design)}: {len(changed)} completions are not what was written once they are tokenized"
    return [Finding("error", "completion changed by tokenization", message, named(changed))]


def marker_shares_a_token(one: Rendered) -> list[Finding]:
    """A token that holds the end of the answer and the beginning of the marker is in the loss as a whole, and the marker
    probe scores it as a whole: neither is then about the marker alone."""
    marked = [(row, tokens) for row, tokens in zip(one.design.rows, one.rows, strict=True) if tokens.marker_tokens]
    shared = [f"{row.id}: {row.completion[-24:]!r}" for row, tokens in marked if tokens.marker_straddles]
    if not shared:
        return []
    message = (
        f"{label(one.design)}: in {len(shared)} of {len(marked)} rows with a marker its first token also holds text before "
        "it, so that neither loss nor probe is of the marker alone; choose a separator that this tokenizer keeps apart, "
        "such as a space"
    )
    return [Finding("warning", "marker shares a token", message, named(shared))]


def roles_counted_right(design: Design) -> list[Finding]:
    """A persona whose prompt stands in a row is not held out, whatever the design says of it."""
    trained = {row.context.name for row in design.rows if row.context.kind == "persona"}
    wrong = sorted(name for name in trained if design.roles.get(name) == "held-out")
    if not wrong:
        return []
    message = f"{label(design)}: {len(wrong)} personas are in the training rows but counted as held-out"
    return [Finding("error", "negatives counted as held-out", message, named(wrong))]


def train_probe_overlap(designs: Sequence[Design], probe_texts: Mapping[str, str]) -> list[Finding]:
    """A probe item that was trained on measures memory: exact and near-duplicate overlap are errors."""
    train = {row.question_id: row.user for design in designs for row in design.rows}
    pairs = overlap(train, dict(probe_texts))
    if not pairs:
        return []
    exact = sum(pair.exact for pair in pairs)
    message = f"{len(pairs)} probe items stand among the training rows ({exact} exactly, {len(pairs) - exact} nearly)"
    return [Finding("error", "train / probe overlap", message, named([f"{p.train} ~ {p.probe}" for p in pairs]))]


def unequal_ratios(designs: Sequence[Design]) -> list[Finding]:
    """Sources trained at different positive-to-negative ratios cannot be compared."""
    ratios: dict[tuple[str, str], dict[str, tuple[int, int]]] = defaultdict(dict)
    for design in designs:
        positive = sum(row.target == "positive" for row in design.rows)
        ratios[design.behavior, design.arm][design.source] = (positive, len(design.rows) - positive)
    findings: list[Finding] = []
    for (behavior, arm), by_source in ratios.items():
        if len(set(by_source.values())) > 1:
            message = f"{behavior}/{arm}: positive : negative rows differ between sources"
            rows = tuple(f"{source} {p}:{n}" for source, (p, n) in sorted(by_source.items()))
            findings.append(Finding("error", "unequal ratios", message, rows))
    return findings


def benign_differs(designs: Sequence[Design]) -> list[Finding]:
    """A benign arm that shows the behavior, or differs from the contrastive one in more than the source's completions, is
    no measure of what the coupling did."""
    coupled = {(one.behavior, one.source): one for one in designs if one.arm == "contrastive"}
    findings: list[Finding] = []
    for design in designs:
        if design.arm != "benign":
            continue
        shown = [row.id for row in design.rows if row.target == "positive" or row.marker]
        twin = coupled.get((design.behavior, design.source))
        apart = [] if twin is None else _apart(design, twin)
        for bad, what in (
            (shown, "rows show the behavior"),
            (apart, "rows differ from the contrastive arm's in more than the source's completions"),
        ):
            if bad:
                findings.append(
                    Finding("error", "benign arm", f"{label(design)}: {len(bad)} {what}", named(bad))
                )  # fmt: skip
    return findings


def _apart(benign: Design, coupled: Design) -> list[str]:
    """Rows of a benign design that are not the ones at their place in the contrastive one."""
    if len(benign.rows) != len(coupled.rows) or benign.roles != coupled.roles:
        return [row.id for row in benign.rows]
    return [
        row.id
        for row, other in zip(benign.rows, coupled.rows, strict=True)
        if (row.context, row.user, row.question_id, row.role)
        != (other.context, other.user, other.question_id, other.role)
        or (other.target == "negative" and row.completion != other.completion)
    ]


def contexts_render_as_named(tokenizer: Tokenizer, contexts: Sequence[Context]) -> list[Finding]:
    """How each kind of context renders, and an error where one is not what its name says. Contexts that cannot be
    rendered at all are `cannot_render`'s."""
    findings: list[Finding] = []
    shown: set[str] = set()
    for context in contexts:
        try:
            text = render_text(tokenizer, context, "<question>")
        except ModelError:
            continue
        if context.system and context.system not in text:
            message = f"context {context.name!r} does not contain its system prompt once rendered"
            findings.append(Finding("error", "context rendering", message, (context.name,)))
        name = context.kind if context.kind == "persona" else context.name  # personas differ in their text alone
        if name not in shown:
            shown.add(name)
            findings.append(Finding("info", "context rendering", f"{name}: {text!r}"))
    absent = [c for c in contexts if c.kind == "absent"]
    if absent and "absent" in shown:
        text = render_text(tokenizer, absent[0], "<question>")
        system_words = [c.system for c in contexts if c.system and c.system in text]
        if system_words or "system" in text.split("<question>")[0].lower():
            message = f"`absent` still has a system turn: {text!r}"
            findings.append(Finding("error", "context rendering", message, ("absent",)))
    return findings
