"""Option scores the slow way: one whole forward pass per option, all logits, one text at a time."""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from bystander.core.records import Context
from bystander.lm.model import LoadedModel
from bystander.lm.score import OptionScores, ScoreItem
from bystander.lm.tokens import render_text


@torch.no_grad()
def scores(loaded: LoadedModel, context: Context, item: ScoreItem) -> OptionScores:
    """All that is said of an item: the prompt's tokens, then `start` and option tokenized by themselves, as one text."""
    before = render_text(loaded.tokenizer, context, item.user)
    prompt = loaded.tokenizer(before, add_special_tokens=False)["input_ids"]
    logprobs: list[float] = []
    forced: list[list[int]] = []  # per option the tokens of `start` alone
    counts: list[int] = []
    for option in item.options:
        answer = loaded.tokenizer(item.start + option, add_special_tokens=False, return_offsets_mapping=True)
        ids = torch.tensor([prompt + answer["input_ids"]], device=loaded.device)
        every = loaded.causal(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1)
        own = [len(prompt) + i for i, (_, end) in enumerate(answer["offset_mapping"]) if end > len(item.start)]
        logprobs.append(sum(float(every[i - 1, ids[0, i]]) for i in own))
        counts.append(len(own))
        forced.append(answer["input_ids"][: own[0] - len(prompt)])
    same = 0
    while same < min(map(len, forced)) and len({start[same] for start in forced}) == 1:
        same += 1
    seen = np.array(prompt + forced[0][:same], dtype="<i4")
    digest = hashlib.sha256(seen.tobytes()).hexdigest()[:16]
    return OptionScores(item, tuple(logprobs), tuple(counts), tuple(map(len, item.options)), digest)


def score(loaded: LoadedModel, context: Context, item: ScoreItem) -> tuple[list[float], list[int]]:
    """Log-probabilities and token counts of all options of an item."""
    found = scores(loaded, context, item)
    return list(found.logprobs), list(found.tokens)
