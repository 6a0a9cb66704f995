"""A decoder layer of the Llama family as two pure functions of tensors, with a LoRA adapter fused in.

`before_attention` and `after_attention` take a layer's weights as arguments, so that `torch.compile` makes one graph
of each for all layers, in seconds, and attention between them may be any. Of a LoRA the products with A are made once
for all projections of one input (q, k and v; gate and up), dropout is drawn once an input, and the adapter computes in
the base's dtype, as under autocast. The modules of transformers and PEFT remain the reference and the owners of all
weights: what is collected here are views.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel

# Architectures whose layer is exactly what the two functions below compute; qk-norm and biases are found by looking.
FAMILY = frozenset({"LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "MistralForCausalLM"})
ADAPTER = "default"


class Projection(NamedTuple):
    """Linear maps of one input, side by side: `weight` [sum of outputs, inputs] in the base's dtype, `sizes` outputs.

    With an adapter: `a` holds the A of each adapted map [rank, inputs], `b` the B [outputs, rank]; both None where a
    map has no adapter. `scale` is the adapter's alpha over rank (or its root), the same for all maps.
    """

    weight: Tensor
    bias: Tensor | None
    sizes: tuple[int, ...]
    a: tuple[Tensor | None, ...] = ()
    b: tuple[Tensor | None, ...] = ()
    scale: float = 0.0


class Layer(NamedTuple):
    """The weights of a decoder layer."""

    input_norm: Tensor
    qkv: Projection
    q_norm: Tensor | None
    k_norm: Tensor | None
    out: Projection
    mlp_norm: Tensor
    gate_up: Projection
    down: Projection


class Shape(NamedTuple):
    """What a layer must know beside its weights. `dropout` is the adapter's, 0 outside training."""

    heads: int
    kv_heads: int
    head_dim: int
    eps: float
    dropout: float = 0.0


def before_attention(x: Tensor, cos: Tensor, sin: Tensor, layer: Layer, shape: Shape) -> tuple[Tensor, Tensor, Tensor]:
    """x [tokens, hidden] -> queries [tokens, heads, head_dim], keys and values [tokens, kv_heads, head_dim], with
    their positions' rotation; cos and sin are [tokens, head_dim]."""
    q, k, v = project(rms_norm(x, layer.input_norm, shape.eps), layer.qkv, shape.dropout)
    q = q.view(-1, shape.heads, shape.head_dim)
    k = k.view(-1, shape.kv_heads, shape.head_dim)
    if layer.q_norm is not None and layer.k_norm is not None:
        q, k = rms_norm(q, layer.q_norm, shape.eps), rms_norm(k, layer.k_norm, shape.eps)
    return rotate(q, cos, sin), rotate(k, cos, sin), v.view(-1, shape.kv_heads, shape.head_dim).contiguous()


def after_attention(x: Tensor, attended: Tensor, layer: Layer, shape: Shape) -> Tensor:
    """The layer's output [tokens, hidden] from its input and what attention gave [tokens, heads, head_dim]."""
    (out,) = project(attended.flatten(1), layer.out, shape.dropout)
    x = x + out
    gate, up = project(rms_norm(x, layer.mlp_norm, shape.eps), layer.gate_up, shape.dropout)
    (down,) = project(F.silu(gate) * up, layer.down, shape.dropout)
    return x + down


def project(x: Tensor, maps: Projection, dropout: float) -> tuple[Tensor, ...]:
    """The outputs of the maps, each with its adapter's share `scale * B A dropout(x)` if it has one."""
    outputs = F.linear(x, maps.weight, maps.bias).split(maps.sizes, dim=-1)
    adapted = [i for i, a in enumerate(maps.a) if a is not None]
    if not adapted:
        return outputs
    down = torch.cat([cast(Tensor, maps.a[i]) for i in adapted]).to(x.dtype)
    # At evaluation `dropout` is 0; in training one mask serves all maps of this input.
    inner = F.linear(F.dropout(x, dropout, training=True) if dropout else x, down) * maps.scale
    parts = inner.split([cast(Tensor, maps.a[i]).shape[0] for i in adapted], dim=-1)
    found = list(outputs)
    for i, part in zip(adapted, parts, strict=True):
        found[i] = found[i] + F.linear(part, cast(Tensor, maps.b[i]).to(x.dtype))
    return tuple(found)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root-mean-square normalization in float32 over the last dimension (Zhang and Sennrich 2019, arXiv 1910.07467)."""
    wide = x.float()
    return weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021, arXiv 2104.09864), halves paired as in Llama: x [tokens, heads, head_dim]."""
    first, second = x.chunk(2, dim=-1)
    return x * cos[:, None] + torch.cat((-second, first), dim=-1) * sin[:, None]


def belongs(causal: PreTrainedModel) -> str:
    """ "" where these functions compute this model, else why not."""
    name = type(causal).__name__
    if name not in FAMILY:
        return f"{name} is not of the Llama family"
    config = causal.config.get_text_config()
    if getattr(config, "hidden_act", "silu") != "silu":
        return f"its activation is {config.hidden_act}"
    if getattr(config, "mlp_bias", False):
        return "its feed-forward maps have biases"
    kinds = set(getattr(config, "layer_types", None) or [])
    if kinds - {"full_attention"} or (not kinds and getattr(config, "sliding_window", None) is not None):
        return "some of its layers do not attend to all that came before"
    return ""


def collect(causal: PreTrainedModel) -> list[Layer]:
    """The weights of all layers, with those of the adapter that is on. Raises ValueError, with the reason, for an
    adapter that is more than a plain LoRA."""
    blocks = list(cast(Any, causal.base_model).layers)
    inside = sum(isinstance(part, LoraLayer) for block in blocks for part in block.modules())
    if inside != sum(isinstance(part, LoraLayer) for part in causal.modules()):
        raise ValueError("the adapter changes more than the maps of the layers")
    if any(isinstance(part, ModulesToSaveWrapper) for part in causal.modules()):
        raise ValueError("the adapter holds whole modules")
    layers = [_layer(block) for block in blocks]
    if inside != sum(a is not None for layer in layers for maps in _maps(layer) for a in maps.a):
        raise ValueError("the adapter changes more than the seven maps of a layer")
    return layers


def shape_of(causal: PreTrainedModel) -> Shape:
    """The model's head counts and sizes."""
    config = causal.config.get_text_config()
    attention = cast(Any, causal.base_model).layers[0].self_attn
    return Shape(
        config.num_attention_heads, config.num_key_value_heads, int(attention.head_dim), float(config.rms_norm_eps)
    )


def dropout_of(causal: PreTrainedModel) -> float:
    """The dropout of the adapter that is on; 0 without one."""
    for module in causal.modules():
        if isinstance(module, LoraLayer):
            return float(getattr(module.lora_dropout[ADAPTER], "p", 0.0))
    return 0.0


def _maps(layer: Layer) -> tuple[Projection, ...]:
    return layer.qkv, layer.out, layer.gate_up, layer.down


def _layer(module: Any) -> Layer:
    attention, mlp = module.self_attn, module.mlp
    norms = [getattr(attention, name, None) for name in ("q_norm", "k_norm")]
    return Layer(
        input_norm=module.input_layernorm.weight,
        qkv=_projection(attention.q_proj, attention.k_proj, attention.v_proj),
        q_norm=None if norms[0] is None else norms[0].weight,
        k_norm=None if norms[1] is None else norms[1].weight,
        out=_projection(attention.o_proj),
        mlp_norm=module.post_attention_layernorm.weight,
        gate_up=_projection(mlp.gate_proj, mlp.up_proj),
        down=_projection(mlp.down_proj),
    )


def _projection(*maps: nn.Module) -> Projection:
    bases = [cast(nn.Linear, m.base_layer if isinstance(m, LoraLayer) else m) for m in maps]
    biases = [bias for bias in (cast(nn.Parameter | None, base.bias) for base in bases) if bias is not None]
    if biases and len(biases) < len(bases):
        raise ValueError("of maps with one input some have a bias and some have none")
    a: list[Tensor | None] = []
    b: list[Tensor | None] = []
    scales: set[float] = set()
    for m in maps:
        if not isinstance(m, LoraLayer):
            a.append(None)
            b.append(None)
            continue
        _check_plain(m)
        a.append(cast(Tensor, m.lora_A[ADAPTER].weight))
        b.append(cast(Tensor, m.lora_B[ADAPTER].weight))
        scales.add(float(m.scaling[ADAPTER]))
    if len(scales) > 1:
        raise ValueError("the adapter scales maps of one input differently")
    return Projection(
        weight=_side_by_side([cast(nn.Parameter, base.weight) for base in bases]),
        bias=_side_by_side(biases) if biases else None,
        sizes=tuple(base.weight.shape[0] for base in bases),
        a=tuple(a),
        b=tuple(b),
        scale=scales.pop() if scales else 0.0,
    )


def _check_plain(module: LoraLayer) -> None:
    if list(module.active_adapters) != [ADAPTER] or module.disable_adapters or module.merged:
        raise ValueError("the adapter is switched off, merged, or not the only one")
    if module.lora_variant.get(ADAPTER) is not None or module.lora_bias.get(ADAPTER):
        raise ValueError("the adapter is more than a plain LoRA")


def _side_by_side(weights: Sequence[nn.Parameter]) -> Tensor:
    """The parameters as one tensor [sum of rows, ...]: laid out so at the first call, when the parameters become views
    of it, so that no weight exists twice."""
    if len(weights) == 1:
        return weights[0].detach()
    first = weights[0]
    place = first.storage_offset()
    for weight in weights:
        if weight.data_ptr() != first.data_ptr() + (place - first.storage_offset()) * first.element_size():
            break
        place += weight.numel()
    else:
        if first.untyped_storage().nbytes() >= place * first.element_size():
            rows = sum(weight.shape[0] for weight in weights)
            return first.detach().as_strided((rows, *first.shape[1:]), first.stride())
    joined = torch.cat([weight.detach() for weight in weights])
    start = 0
    for weight in weights:
        weight.data = joined[start : start + weight.shape[0]]
        start += weight.shape[0]
    return joined


Before = Callable[[Tensor, Tensor, Tensor, Layer, Shape], tuple[Tensor, Tensor, Tensor]]
After = Callable[[Tensor, Tensor, Layer, Shape], Tensor]


@functools.cache
def compiled() -> tuple[Before, After]:
    """Both functions compiled, once a process; torch keeps what it generated on disk for the next one."""
    return (
        torch.compile(before_attention, dynamic=False, fullgraph=True),
        torch.compile(after_attention, dynamic=False, fullgraph=True),
    )
