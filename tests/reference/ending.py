"""The ending of an answer the slow way: one whole forward pass per answer, all logits, one text at a time."""

from __future__ import annotations

import math

import torch

from bystander.core.records import Context
from bystander.lm.ending import Ending, EndingItem
from bystander.lm.model import LoadedModel
from bystander.lm.tokens import render_text, template_of


@torch.no_grad()
def ending(loaded: LoadedModel, context: Context, item: EndingItem) -> Ending:
    """All that is said of one answer, by the definitions."""
    before = render_text(loaded.tokenizer, context, item.user)
    prompt = loaded.tokenizer(before, add_special_tokens=False)["input_ids"]
    said = loaded.tokenizer(item.answer + item.tail, add_special_tokens=False, return_offsets_mapping=True)
    own = [len(prompt) + i for i, (_, stop) in enumerate(said["offset_mapping"]) if stop > len(item.answer)]
    ids = prompt + said["input_ids"]
    logits = loaded.causal(input_ids=torch.tensor([ids], device=loaded.device), use_cache=False).logits[0].double()
    place = logits[own[0] - 1].tolist()
    most = max(place)
    log_z = most + math.log(sum(math.exp(one - most) for one in place))
    end = loaded.tokenizer(template_of(loaded.tokenizer).answer_end, add_special_tokens=False)["input_ids"][0]
    marker = sum(float(logits[i - 1].log_softmax(-1)[ids[i]]) for i in own)
    return Ending(item, marker, place[end] - log_z, place[ids[own[0]]], place[end], log_z, len(own))
