"""A stand-in with vLLM's interface that answers from transformers, for machines without vLLM."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest
import torch

from bystander.lm.model import load


class StandIn:
    """vllm.LLM's interface over transformers. `fault`: None, "base" (adapters are ignored), "stale" (the first adapter
    is served whatever is asked for). It draws nothing: whatever the temperature, the likeliest token is next."""

    fault = None

    def __init__(self, model, **settings):
        self.loaded = load(model)
        self.loaded.base_id = "tiny"  # vLLM does not ask which base an adapter names
        self.settings = settings
        self.first = None

    def generate(self, prompts, params, lora_request=None, use_tqdm=True):
        path = lora_request.lora_path if lora_request else None
        self.first = self.first or path
        path = {None: path, "base": None, "stale": path and self.first}[StandIn.fault]
        with self.loaded.adapter(path), torch.no_grad():
            return [self._answer(p["prompt_token_ids"], one) for p, one in zip(prompts, params, strict=True)]

    def _answer(self, ids: list[int], params: dict[str, Any]) -> types.SimpleNamespace:
        """As vLLM does, an answer holds the token that stopped it."""
        answer: list[int] = []
        while len(answer) < params["max_tokens"] and not set(answer[-1:]) & set(params.get("stop_token_ids", ())):
            whole = torch.tensor([ids + answer])
            logprobs = self.loaded.head(self.loaded.body(input_ids=whole)[0, -1:]).float().log_softmax(-1)[0]
            (token,) = params.get("allowed_token_ids", [int(logprobs.argmax())])
            answer.append(token)
        seen = {token: types.SimpleNamespace(logprob=float(logprobs[token]))}
        return types.SimpleNamespace(outputs=[types.SimpleNamespace(token_ids=answer, logprobs=[seen])])


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the stand-in what `import vllm` gives."""
    top, lora = types.ModuleType("vllm"), types.ModuleType("vllm.lora.request")
    top.LLM = StandIn
    top.SamplingParams = lambda **settings: settings
    lora.LoRARequest = lambda name, number, path: types.SimpleNamespace(
        lora_name=name, lora_int_id=number, lora_path=path
    )
    for name, module in {"vllm": top, "vllm.lora": types.ModuleType("vllm.lora"), "vllm.lora.request": lora}.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(StandIn, "fault", None)
