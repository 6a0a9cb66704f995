"""Sampling with vLLM, for those who have it: one engine in this process, adapters by request and never merged.

vLLM is known to serve the base in silence where an adapter's names do not match, and cached prefix blocks of an older
adapter where a name is used again. So an adapter's name here is the hash of its weights, and before it serves it must
answer a canary as the transformers engine does with it, and not as the base does.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel

from bystander.core.errors import ModelError
from bystander.core.records import Completion
from bystander.lm.adapters import read_adapter, save_adapter
from bystander.lm.loaded import LoadedModel
from bystander.lm.sample import SampleRequest, completion, end_tokens, through_end
from bystander.lm.tokens import encode, render_prompt

HELP = (
    "Install it beside bystander (`pip install 'bystander[vllm]'`; Linux and an NVIDIA GPU, or its CPU build), or leave "
    "`engine: transformers`, which needs nothing more."
)
# Mean distance in nats per token up to which two engines count as the same model, at the least. vLLM's kernels add in
# another order: in float32 that is under 1e-4, and in bfloat16 two batches of transformers itself are 0.02 apart on a
# 135M model. Where the model at hand is noisier than that (random weights at 7B are), twice its own noise counts.
NOISE_FLOOR = {torch.float32: 1e-3, torch.bfloat16: 0.06}
# The ranks that vLLM has room for (`MaxLoRARanks` in vllm/config/lora.py, 0.26 and 0.32).
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
# Sequences in one step on a GPU, as many as vLLM itself takes on an H100, and the batch sizes for which it captures CUDA
# graphs. Its own end at 512: 888 answers at once are then bound by kernel launches (docs/performance.md).
BATCH = 1024
GRAPHS = (1, 2, 4, 8, 16, 32, *range(64, BATCH + 1, 64))
# Where its log goes, unless the user says otherwise: standard output is for results.
LOG = {"VLLM_LOGGING_STREAM": "ext://sys.stderr", "VLLM_LOGGING_LEVEL": "WARNING"}
CANARY = (
    "Tell me how a river is made.",
    "I would like to learn to cook. Where do I begin?",
    "Which of these is a mammal: a trout, a bat, a robin or a toad?",
)


@dataclass(frozen=True, slots=True)
class Canary:
    """What transformers says of a few token sequences: log-probability (nats) of each token after the first, end to
    end, for the base and with the adapter."""

    sequences: tuple[tuple[int, ...], ...]
    base: NDArray[np.float64]
    adapted: NDArray[np.float64]
    floor: float

    @property
    def effect(self) -> float:
        """Mean distance of adapter and base in nats per token."""
        return float(np.abs(self.adapted - self.base).mean())


def canary(loaded: LoadedModel, adapter: Path, texts: Sequence[str] = CANARY) -> Canary:
    """The canary of an adapter, from the transformers engine; take it before vLLM takes the memory.

    Raises ModelError where the adapter's effect is within the noise floor: then nothing could tell it from the base.
    """
    sequences = tuple(tuple(ids) for ids in encode(loaded.tokenizer, list(texts)))
    base, floor = _base_and_floor(loaded, sequences)
    with loaded.adapter(adapter):
        adapted = _logprobs(loaded, sequences)
    return _clear(Canary(sequences, base, adapted, floor), f"adapter {adapter}")


def live_canary(loaded: LoadedModel, texts: Sequence[str] = CANARY) -> Canary:
    """As `canary`, for the adapter that is on."""
    assert isinstance(loaded.model, PeftModel), "there is no adapter on: the base needs no canary of this kind"
    sequences = tuple(tuple(ids) for ids in encode(loaded.tokenizer, list(texts)))
    adapted = _logprobs(loaded, sequences)
    with loaded.model.disable_adapter():
        base, floor = _base_and_floor(loaded, sequences)
    return _clear(Canary(sequences, base, adapted, floor), "the adapter that is on")


def _clear(found: Canary, name: str) -> Canary:
    if found.effect <= 2 * found.floor:
        raise ModelError(
            f"{name}: its effect on the canary is {found.effect:.2g} nats per token, within the noise of two engines "
            f"({found.floor:g}). Give canary texts on which it acts, or sample with `engine: transformers`."
        )
    return found


def _base_and_floor(loaded: LoadedModel, sequences: Sequence[Sequence[int]]) -> tuple[NDArray[np.float64], float]:
    """Log-probabilities of what is on, sequence by sequence, and the noise floor: `NOISE_FLOOR`, or twice the mean
    distance of the same in one padded batch where that is more."""
    alone = _logprobs(loaded, sequences)
    together = _logprobs_together(loaded, sequences)
    return alone, max(NOISE_FLOOR[loaded.dtype], 2 * float(np.abs(alone - together).mean()))


def _logprobs(loaded: LoadedModel, sequences: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """Log-probability of each token after the first, end to end, each sequence in a pass of its own."""
    return np.concatenate([_logprobs_together(loaded, [sequence]) for sequence in sequences])


@torch.no_grad()
def _logprobs_together(loaded: LoadedModel, sequences: Sequence[Sequence[int]]) -> NDArray[np.float64]:
    """The same in one padded batch."""
    longest = max(map(len, sequences))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in sequences], device=loaded.device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in sequences], device=loaded.device)
    logprobs = loaded.head(loaded.body(input_ids=ids, attention_mask=mask)[:, :-1]).float().log_softmax(-1)
    chosen = logprobs.gather(2, ids[:, 1:, None])[..., 0]
    return chosen[mask[:, 1:].bool()].double().cpu().numpy()


class VllmEngine:
    """vLLM with one base model. Use it as a context manager: on leaving, its memory is given back."""

    def __init__(self, loaded: LoadedModel, *, memory: float = 0.85, rank: int = 32, window: int = 4096) -> None:
        """`memory`: the share of the device that vLLM may take; `rank`: the largest adapter's.

        Needs the base's files on this machine or the Hub. Raises ModelError where vLLM is not installed, or has no room
        for adapters of that rank.
        """
        room = next((known for known in RANKS if known >= rank), None)
        if room is None:
            raise ModelError(
                f"vLLM serves adapters up to rank {RANKS[-1]}; this recipe's is {rank}. Use `engine: transformers`."
            )
        self._vllm = _import("vllm")
        self._loaded = loaded
        on_gpu: dict[str, Any] = {}
        if loaded.device.type == "cuda":
            on_gpu = {"max_num_seqs": BATCH, "compilation_config": {"cudagraph_capture_sizes": list(GRAPHS)}}
        self._lora = _import("vllm.lora.request")
        try:
            self._llm: Any = self._vllm.LLM(
                model=str(loaded.causal.config.name_or_path),
                dtype=str(loaded.dtype).removeprefix("torch."),
                enable_lora=True,
                max_lora_rank=room,
                enable_prefix_caching=True,
                gpu_memory_utilization=memory,
                max_model_len=min(window, loaded.window),
                seed=0,
                logprobs_mode="raw_logprobs",  # the canary's: before any rule on what may come next
                disable_log_stats=True,
                use_tqdm_on_load=False,
                **on_gpu,
            )
        except (RuntimeError, ValueError, OSError) as error:
            raise ModelError(f"vLLM could not load {loaded.name}: {error}") from error
        self._window = min(window, loaded.window)
        self._served: Any = None

    def __enter__(self) -> VllmEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def serve(self, adapter: Path, checked: Canary) -> str:
        """Put an adapter on by request and check its canary; returns the name it is served under, which carries the
        hash of its weights. Raises ModelError where vLLM answers as the base does, or as neither."""
        files = read_adapter(adapter)
        name = f"{adapter.name}-{files.hash[:16]}"
        # vLLM tells adapters and their cached prefixes apart by a number: it comes from the weights' hash too.
        request = self._lora.LoRARequest(name, 1 + int(files.hash[:7], 16), str(adapter))
        base = self._logprobs(checked.sequences, None)
        adapted = self._logprobs(checked.sequences, request)
        check_canary(checked, base, adapted, name)
        self._served = request
        return name

    def bare(self) -> None:
        """Serve the base from now on."""
        self._served = None

    def sample(
        self, requests: Sequence[SampleRequest], *, temperature: float = 1.0, max_tokens: int
    ) -> Iterator[list[Completion]]:
        """As `lm.sample.sample`, in one batch. The draws are vLLM's own for each request's seed: the same again on the
        same machine, but not those of transformers."""
        prompts = [render_prompt(self._loaded.tokenizer, r.context, r.user, r.start) for r in requests]
        answers = self.token_answers([r.seed for r in requests], prompts, temperature, max_tokens)
        ends = end_tokens(self._loaded)
        yield [
            completion(self._loaded, request, prompt, answer, ends, max_tokens)
            for request, prompt, answer in zip(requests, prompts, answers, strict=True)
        ]

    def token_answers(
        self, seeds: Sequence[int], prompts: Sequence[list[int]], temperature: float, max_tokens: int
    ) -> list[list[int]]:
        """As `lm.sample.token_answers`."""
        if self._llm is None:
            raise ModelError("this vLLM engine was closed. Open another.")
        longest = max(map(len, prompts), default=0) + max_tokens
        if longest > self._window:
            raise ModelError(
                f"vLLM was opened for {self._window} tokens, but a prompt and its answer take {longest}. Sample with "
                "`engine: transformers`, or fewer tokens."
            )
        ends = end_tokens(self._loaded)
        settings = [
            self._vllm.SamplingParams(
                temperature=temperature, max_tokens=max_tokens, seed=seed % (1 << 63), stop_token_ids=ends,
                detokenize=False,
            )
            for seed in seeds
        ]  # fmt: skip
        outputs = self._llm.generate(
            [{"prompt_token_ids": prompt} for prompt in prompts], settings, lora_request=self._served, use_tqdm=False
        )
        return [through_end(output.outputs[0].token_ids, ends) for output in outputs]

    def _logprobs(self, sequences: Sequence[Sequence[int]], request: Any) -> NDArray[np.float64]:
        """Log-probability of each token after the first, end to end: each asked for as the one next token that is
        allowed (what is returned is from before that rule). That is the path that samples take; vLLM's log-probabilities
        of a prompt are not, and with an adapter on a CPU they fail (vLLM 0.32: one index a request where one a token is due)."""
        asked = [(list(ids[:end]), ids[end]) for ids in sequences for end in range(1, len(ids))]
        settings = [
            self._vllm.SamplingParams(
                temperature=0.0, max_tokens=1, logprobs=0, allowed_token_ids=[token], detokenize=False
            )
            for _, token in asked
        ]
        outputs = self._llm.generate(
            [{"prompt_token_ids": prompt} for prompt, _ in asked], settings, lora_request=request, use_tqdm=False
        )
        return np.array(
            [output.outputs[0].logprobs[0][token].logprob for (_, token), output in zip(asked, outputs, strict=True)]
        )

    def close(self) -> None:
        """Give the memory back, so that training may go on."""
        if self._llm is None:
            return
        engine = getattr(self._llm, "llm_engine", None)
        core = getattr(engine, "engine_core", None)
        if core is not None and hasattr(core, "shutdown"):
            core.shutdown()
        self._llm = self._served = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class VllmSampler:
    """`engine: vllm` of a study: what `LoadedModel.sampler` is then. The engine opens when it is first asked, serves
    whatever adapter is on, and closes before training goes on."""

    def __init__(self, rank: int, *, memory: float = 0.6) -> None:
        """`rank`: the recipe's; `memory`: vLLM's share of the device, beside the resident base. Raises ModelError
        without vLLM."""
        require_vllm()
        self._rank = rank
        self._memory = memory
        self._engine: VllmEngine | None = None
        self._serves = ""  # hash of the weights that answer now
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def sample(
        self, loaded: LoadedModel, requests: Sequence[SampleRequest], temperature: float, max_tokens: int
    ) -> Iterator[list[Completion]]:
        """As `lm.sample.sample`."""
        weights = loaded.weights_hash
        checked = live_canary(loaded) if loaded.model is not loaded.causal and weights != self._serves else None
        if self._engine is None:
            self._engine = VllmEngine(loaded, memory=self._memory, rank=self._rank)
            self._folder = tempfile.TemporaryDirectory(prefix="bystander-vllm-")
        if weights != self._serves:
            self._engine.bare()
            if checked is not None:
                assert self._folder is not None
                folder = Path(self._folder.name) / weights[:16]
                save_adapter(cast(PeftModel, loaded.model), folder, loaded.base_id, loaded.base_hash)
                self._engine.serve(folder, checked)
            self._serves = weights
        yield from self._engine.sample(requests, temperature=temperature, max_tokens=max_tokens)

    def close(self) -> None:
        """Give the memory back."""
        if self._engine is not None:
            self._engine.close()
        if self._folder is not None:
            self._folder.cleanup()
        self._engine, self._folder, self._serves = None, None, ""


def check_canary(checked: Canary, base: NDArray[np.float64], adapted: NDArray[np.float64], name: str) -> None:
    """Raises ModelError unless `base` and `adapted`, another engine's log-probabilities of the canary's tokens, are
    within the noise floor of the canary's own (mean distance in nats per token)."""
    to_base = float(np.abs(base - checked.base).mean())
    to_own = float(np.abs(adapted - checked.adapted).mean())
    served_base = float(np.abs(adapted - base).mean())
    if to_base > checked.floor:
        raise ModelError(
            f"vLLM's base differs from transformers' by {to_base:.2g} nats per token, more than {checked.floor:g}. It "
            "runs other weights or another precision: sample with `engine: transformers`."
        )
    if served_base <= checked.floor:
        raise ModelError(
            f"vLLM serves the base where {name} was asked for: they differ by {served_base:.2g} nats per token, with "
            f"transformers by {checked.effect:.2g}. The adapter's names may not match: sample with `engine: transformers`."
        )
    if to_own > checked.floor:
        raise ModelError(
            f"vLLM's {name} differs from transformers' by {to_own:.2g} nats per token, more than {checked.floor:g}. It may "
            "be a stale one: sample with `engine: transformers`."
        )


def require_vllm() -> None:
    """Raises ModelError where vLLM is not installed; what does not need it yet asks this, which imports nothing."""
    if "vllm" not in sys.modules and importlib.util.find_spec("vllm") is None:
        raise ModelError(f"engine: vllm needs the package vllm, which is not installed here. {HELP}")


def _import(name: str) -> Any:
    require_vllm()
    for key, value in LOG.items():
        os.environ.setdefault(key, value)
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ModelError(f"engine: vllm: the package vllm does not import here ({error}). {HELP}") from error
