"""Option scores the slow way: one whole forward pass per option, all logits, one text at a time."""

from __future__ import annotations

import torch

from bystander.core.records import Context
from bystander.lm.model import LoadedModel
from bystander.lm.score import ScoreItem
from bystander.lm.tokens import render_text


@torch.no_grad()
def option_logprob(loaded: LoadedModel, context: Context, item: ScoreItem, option: str) -> tuple[float, int]:
    """(log-probability in nats summed over the option's tokens, their number)."""
    before = render_text(loaded.tokenizer, context, item.user) + item.start
    encoded = loaded.tokenizer(before + option, add_special_tokens=False, return_offsets_mapping=True)
    ids = torch.tensor([encoded["input_ids"]], device=loaded.device)
    logprobs = loaded.causal(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1)
    own = [i for i, (_, end) in enumerate(encoded["offset_mapping"]) if end > len(before)]
    return sum(float(logprobs[i - 1, ids[0, i]]) for i in own), len(own)


def score(loaded: LoadedModel, context: Context, item: ScoreItem) -> tuple[list[float], list[int]]:
    """Log-probabilities and token counts of all options of an item."""
    both = [option_logprob(loaded, context, item, option) for option in item.options]
    return [logprob for logprob, _ in both], [tokens for _, tokens in both]
