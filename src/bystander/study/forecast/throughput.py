"""How fast a machine is, and how large a model: measured here and kept, or published figures of a named kind.

A figure is in tokens a second as `workload` counts them; it says where it is from, so that a plan can say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

from bystander.core.errors import ModelError, StudyError
from bystander.core.files import read_json, write_json
from bystander.core.hashing import stable_hash
from bystander.lm import embedded
from bystander.lm.gguf_header import local_file, read_header
from bystander.study.config.blocks import ExecutorSettings, ModelSettings


@dataclass(frozen=True, slots=True)
class Shape:
    """What a forecast needs to know of a model. `kv` is the width of keys and of values."""

    hidden: int
    inner: int
    layers: int
    kv: int
    parameters: float
    vocabulary: int = 151_936  # Qwen's: most of the models that are meant here

    def adapter_bytes(self, rank: int, bytes_each: int = 4) -> float:
        """Bytes of a LoRA adapter on all seven linear layers of every block."""
        h, i, kv = self.hidden, self.inner, self.kv
        attention = (h + h) + 2 * (h + kv) + (h + h)
        return float(rank * (attention + 3 * (h + i)) * self.layers * bytes_each)


SHAPES: dict[str, Shape] = {  # from the models' config.json; parameters from their model cards
    embedded.NAME: Shape(576, 1536, 30, 192, 134.5e6, 49_152),
    embedded.HUB_ID: Shape(576, 1536, 30, 192, 134.5e6, 49_152),
    "Qwen/Qwen2.5-0.5B-Instruct": Shape(896, 4864, 24, 128, 0.49e9),
    "Qwen/Qwen2.5-1.5B-Instruct": Shape(1536, 8960, 28, 256, 1.54e9),
    "Qwen/Qwen2.5-7B-Instruct": Shape(3584, 18944, 28, 512, 7.62e9),
    "Qwen/Qwen2.5-14B-Instruct": Shape(5120, 13824, 48, 1024, 14.7e9),
}
UNKNOWN = Shape(4096, 14336, 32, 1024, 8.0e9)  # an 8-billion-parameter model, where nothing is known


@dataclass(frozen=True, slots=True)
class Overheads:
    """Seconds that no arithmetic takes, and no larger share of a GPU shortens: a training step's launches, a sampling
    cell's capturing of graphs, the host's own for a row measured (rendering, tokenizing, packing, reading back), for a
    logit of a distribution read whole, for a row designed and for a measurement read back; whatever a cell does
    (an adapter on, a canary, hashing, writing); a worker's start (importing, loading, compiling)."""

    step: float = 0.0
    capture: float = 0.0
    row: float = 0.0
    logit: float = 0.0
    designed: float = 0.0
    gathered: float = 0.0
    cell: float = 0.5
    start: float = 0.0


@dataclass(frozen=True, slots=True)
class Rates:
    """Tokens a second, for one worker that has a device to itself and is bound by arithmetic, and what comes on top of
    that. `kind` names the device; `source` says where the figures are from."""

    kind: str
    scored: float
    trained: float
    sampled: float
    source: str
    measured: bool = False
    overheads: Overheads = field(default_factory=Overheads)


# Published figures. docs/performance.md: H100 80 GB on the shape of Qwen2.5-7B-Instruct in bf16, with an adapter on: 444
# questions/s of 130 tokens; 112.8 rows/s of 140 tokens; 23,549 tokens/s sampled. Two cores with SmolLM2-135M in float32:
# 5.5 questions/s of 102 tokens; 1.9 rows/s of 99 tokens; 112 tokens/s. The other kinds are scaled from the H100 by their
# data sheets: dense bf16 TFLOP/s for scoring and training, memory bandwidth for sampling.
_H100 = (444 * 130.0, 112.8 * 140, 23549.0)
_SCALES: dict[str, tuple[float, float]] = {  # of compute and of bandwidth, against the H100's 989 TFLOP/s and 3.35 TB/s
    "h100": (1.0, 1.0),
    "h200": (1.0, 4.8 / 3.35),
    "a100": (312 / 989, 2.0 / 3.35),
    "l40s": (362 / 989, 0.864 / 3.35),
    "a10g": (70 / 989, 0.6 / 3.35),
    "rtx4090": (165 / 989, 1.01 / 3.35),
}
# float32 takes transformers' own forward pass. By data sheet an H100 has 67 TFLOP/s of it in place of 989, and twice the
# bytes are moved; and a small model waits for kernels to be launched: SmolLM2-135M on an H100 scored 168,771 tokens in
# 17.1 s and sampled 5,328 in 10.3 s in one process alone, and trained 39,452 in 14.7 s in each of three at once
# (docs/log-earlier.md, 2026-11-25).
_FLOAT32 = (67 / 989, 67 / 989, 1 / 2)
_LAUNCHED = (168771 / 17.1, 39452 / 14.7, 5328 / 10.3)
KINDS = (*_SCALES, "cpu")
# What comes on top on a GPU in bfloat16, by arithmetic from two sizes each (commit 6b70446, 2026-11-27):
# `bench train`, 16 rows of 140 tokens: 135 rows/s at 1.5B, 116 at 7B: a step of 28 layers is 118 ms of launches, under
# which 1.5B's 29 ms of arithmetic vanish and 7B's 142 do not. `bench score`, 40 questions a context: 834 and 370
# questions/s, 0.8 ms a question beyond the arithmetic of either, in 2.5 rows. The study of 169 cells at 1.5B
# (shared/reference): 1.2 s a cell, 2 s of capturing, 11 s to a worker's first cell, its gate 6 s with 290,000 rows. Two
# geometries of 2,760 distributions over 151,936 words took 25 and 39 s where distributions are compared on the GPU
# (2026-11-28); that study's kept the host busy with them for 106 s.
_STEP_LAYER = 0.1185 / 28
_GPU = Overheads(
    capture=2.0, row=0.32e-3, logit=6.7e-8, designed=3.5e-5, gathered=2.1e-5, cell=1.2, start=11.0,
)  # fmt: skip
_CPU = Overheads(cell=0.5, designed=3.5e-5, gathered=2.1e-5)
# Of a sampled token's time at 7B (16 ms of a step of 30), what shrinks with the model; the rest is drawing and the cache.
_SAMPLED_BY_SIZE = 0.5
# Two processes on one GPU took 160 ms a step where one alone takes 118 (the same study).
CONTENTION = 0.35
TOGETHER = 8  # trainings in joint passes: beyond, a step of 16 rows each gains nothing more (docs/many-adapters.md)


def published(kind: str, shape: Shape) -> Rates:
    """Published figures of a kind, scaled to the model's size. Raises StudyError for a kind nobody published."""
    name = kind.lower().replace(" ", "").replace("-", "").removeprefix("nvidia")
    if name == "cpu":
        share = SHAPES[embedded.NAME].parameters / shape.parameters
        said = _said("a 2-core CPU", share)
        return Rates("cpu", 561 * share, 188 * share, 112 * share, said, overheads=_CPU)
    if name not in _SCALES:
        raise StudyError(f"no published figures for the GPU kind {kind!r}; known: {', '.join(KINDS)}")
    compute, bandwidth = _SCALES[name]
    share = SHAPES["Qwen/Qwen2.5-7B-Instruct"].parameters / shape.parameters
    scored, trained, sampled = _H100
    said = _said(f"an {name.upper()}" + ("" if name == "h100" else ", scaled from an H100 by data sheet"), share)
    sampled *= bandwidth / (_SAMPLED_BY_SIZE / share + 1 - _SAMPLED_BY_SIZE)
    overheads = replace(_GPU, step=_STEP_LAYER * shape.layers)
    return Rates(name, scored * compute * share, trained * compute * share, sampled, said, overheads=overheads)


def _said(what: str, share: float) -> str:
    size = "" if abs(share - 1) < 0.05 else ", scaled by the number of parameters"
    return f"published figures of {what}{size}"


def shape_of(model: str) -> Shape:
    """The model's shape: known, or from a config.json or a GGUF on this machine; an 8B model's where there is neither."""
    if model in SHAPES:
        return SHAPES[model]
    if model.lower().endswith(".gguf"):
        return _shape_of_gguf(model)
    try:
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(model, local_files_only=True).get_text_config()
    except Exception:  # not on this machine, or not a model: the plan says that the shape is assumed
        return UNKNOWN
    heads = int(config.num_attention_heads)
    head = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    kv = head * int(getattr(config, "num_key_value_heads", None) or heads)
    per_layer = 2 * config.hidden_size * (config.hidden_size + kv) + 3 * config.hidden_size * config.intermediate_size
    total = config.num_hidden_layers * per_layer + config.vocab_size * config.hidden_size
    return Shape(
        config.hidden_size, config.intermediate_size, config.num_hidden_layers, kv, float(total), config.vocab_size
    )


def _shape_of_gguf(model: str) -> Shape:
    """From the header alone; UNKNOWN where the file is not here or says too little, which loading it then tells."""
    file = local_file(model)
    if file is None:
        return UNKNOWN
    try:
        header = read_header(file)
        hidden, heads = int(header.told("embedding_length")), int(header.told("attention.head_count"))
        head = int(header.told("attention.key_length", hidden // heads))
        return Shape(
            hidden, int(header.told("feed_forward_length")), int(header.told("block_count")),
            head * int(header.told("attention.head_count_kv", heads)), float(sum(map(prod, header.shapes.values()))),
        )  # fmt: skip
    except (ModelError, TypeError):  # a list where one number was: no architecture that is read here
        return UNKNOWN


def known_shape(model: str) -> bool:
    """Whether `shape_of` knows the model, rather than assuming one."""
    return shape_of(model) is not UNKNOWN


def device_here() -> str:
    """Readable name of the device that a model would be put on here, without loading torch where there is no GPU."""
    gpu = Path("/proc/driver/nvidia/gpus")
    if not gpu.is_dir():
        return "cpu"
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"


def calibration_file(model: ModelSettings) -> Path:
    """Where this machine's calibration for a model is kept."""
    name = stable_hash(model.model_dump(mode="json"), device_here(), _cores())[:16]
    return embedded.cache_dir() / "calibration" / f"{name}.json"


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def kept_calibration(model: ModelSettings) -> Rates | None:
    """The calibration that an earlier `bystander plan --calibrate` kept, if any."""
    path = calibration_file(model)
    if not path.is_file():
        return None
    kept: Mapping[str, Any] = read_json(path)
    overheads = Overheads(**kept.get("overheads", {}))
    figures: dict[str, Any] = {name: value for name, value in kept.items() if name != "overheads"}
    return Rates(**figures, overheads=overheads)


def keep_calibration(model: ModelSettings, rates: Rates) -> Path:
    """Keep a calibration for later plans."""
    path = calibration_file(model)
    write_json(path, asdict(replace(rates, measured=True)))
    return path


def rates_for(model: ModelSettings, gpu_kind: str | None) -> Rates:
    """The figures for a plan: those of the named GPU kind; else this machine's calibration; else published ones of the
    device that is here (an H100's where the model is too large for a CPU to be meant)."""
    shape = shape_of(model.name)
    if not gpu_kind:
        kept = kept_calibration(model)
        if kept is not None:
            return kept
        gpu_kind = _kind_here(shape)
    return _in_dtype(published(gpu_kind, shape), model)


def _kind_here(shape: Shape) -> str:
    here = device_here().lower()
    named = next((kind for kind in _SCALES if kind in here.replace(" ", "")), None)
    return named or ("cpu" if here == "cpu" and shape.parameters < 2e9 else "h100")


def _in_dtype(rates: Rates, model: ModelSettings) -> Rates:
    """A GPU's figures, which are bfloat16's, for the dtype that the study asks for."""
    if rates.kind == "cpu" or model.dtype != "float32":
        return rates
    scored, trained, sampled = (
        min(rate * share, most)
        for rate, share, most in zip((rates.scored, rates.trained, rates.sampled), _FLOAT32, _LAUNCHED, strict=True)
    )
    plain = replace(rates.overheads, step=0.0, capture=0.0)  # launches are in those figures
    return replace(
        rates, scored=scored, trained=trained, sampled=sampled, source=f"{rates.source}, in float32", overheads=plain
    )


def worker_share(settings: ExecutorSettings) -> float:
    """Of a device, what a worker has: below 1 where several share a GPU. What the study says of it, or the GPUs that
    are here; 1 where neither says."""
    asked = getattr(settings, "gpus", None)
    if isinstance(asked, int | float) and asked > 0:
        return min(1.0, float(asked))
    if settings.kind != "processes" or device_here() == "cpu":
        return 1.0
    import torch

    return min(1.0, torch.cuda.device_count() / settings.workers)


__all__ = [
    "CONTENTION",
    "KINDS",
    "TOGETHER",
    "Overheads",
    "Rates",
    "Shape",
    "calibration_file",
    "device_here",
    "keep_calibration",
    "kept_calibration",
    "known_shape",
    "published",
    "rates_for",
    "shape_of",
    "worker_share",
]
