"""The packed forward pass with several LoRA adapters at once: tokens sorted by adapter, one base product for all.

The layer is that of `layers`, cut at attention; its second half and the next layer's first are one function here, so
that a compiled pass is one call a layer. The products with A and B are grouped: each adapter's tokens meet its own
matrices alone, so that not even a NaN passes from one adapter to another. `LoadedModel.body` with one adapter on is the
reference.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from bystander.lm import layers
from bystander.lm.adapter_stack import AdapterStack
from bystander.lm.attention import Bounds, attend
from bystander.lm.layers import Layer, Projection, Shape, rms_norm, rotate
from bystander.lm.packed import loose

# The finalizer of MurmurHash3 (Appleby 2011, public domain) and the golden ratio, as signed 32-bit integers.
MIX_1, MIX_2, GOLDEN = 0x85EBCA6B - 2**32, 0xC2B2AE35 - 2**32, 0x9E3779B9 - 2**32
GRAPHS = 64  # that a process may compile of one function
# Maps that share an input, in the order of `layers.Layer`'s projections.
SHARING = (("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), ("self_attn.o_proj",),
           ("mlp.gate_proj", "mlp.up_proj"), ("mlp.down_proj",))  # fmt: skip


class Tokens(NamedTuple):
    """Whose tokens are whose. `keys` [tokens], int32, decide dropout; `ends` [slots], int32: where each slot's tokens
    end. `spans`: the slots' numbers of tokens on the host, for products in a loop; None: grouped products."""

    keys: Tensor
    ends: Tensor
    spans: tuple[int, ...] | None


class Branches(NamedTuple):
    """The adapters of maps that share an input: `a` [slots, ranks of the adapted maps, inputs], `b` per map
    [slots, outputs, rank] or None where a map has none; `salt`, an int32 scalar, tells this input from others."""

    a: Tensor | None
    b: tuple[Tensor | None, ...]
    salt: Tensor


class StackedLayer(NamedTuple):
    """A decoder layer and the adapters on it."""

    base: Layer
    qkv: Branches
    out: Branches
    gate_up: Branches
    down: Branches


class StackedShape(NamedTuple):
    """What a layer must know beside its weights; `dropout` and `scale` are the adapters'."""

    base: Shape
    dropout: float
    scale: float


def before(x: Tensor, cos: Tensor, sin: Tensor, tokens: Tokens, layer: StackedLayer, shape: StackedShape):  # fmt: skip
    """As `layers.before_attention`: x [tokens, hidden] -> queries, keys and values [tokens, heads, head_dim]."""
    base, sizes = layer.base, shape.base
    q, k, v = project(rms_norm(x, base.input_norm, sizes.eps), base.qkv, layer.qkv, tokens, shape)
    q = q.view(-1, sizes.heads, sizes.head_dim)
    k = k.view(-1, sizes.kv_heads, sizes.head_dim)
    if base.q_norm is not None and base.k_norm is not None:
        q, k = rms_norm(q, base.q_norm, sizes.eps), rms_norm(k, base.k_norm, sizes.eps)
    return rotate(q, cos, sin), rotate(k, cos, sin), v.view(-1, sizes.kv_heads, sizes.head_dim).contiguous()


def after(x: Tensor, attended: Tensor, tokens: Tokens, layer: StackedLayer, shape: StackedShape) -> Tensor:
    """As `layers.after_attention`: the layer's output [tokens, hidden]."""
    base = layer.base
    (out,) = project(attended.flatten(1), base.out, layer.out, tokens, shape)
    x = x + out
    gate, up = project(rms_norm(x, base.mlp_norm, shape.base.eps), base.gate_up, layer.gate_up, tokens, shape)
    (down,) = project(F.silu(gate) * up, base.down, layer.down, tokens, shape)
    return x + down


def between(
    x: Tensor, attended: Tensor, cos: Tensor, sin: Tensor, tokens: Tokens, layer: StackedLayer, following: StackedLayer,
    shape: StackedShape,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """From one attention to the next: the layer's output, and queries, keys and values of the layer that follows."""
    x = after(x, attended, tokens, layer, shape)
    q, k, v = before(x, cos, sin, tokens, following, shape)
    return x, q, k, v


def project(x: Tensor, maps: Projection, branches: Branches, tokens: Tokens, shape: StackedShape) -> tuple[Tensor, ...]:
    """The outputs of the maps, each with the share `scale * B A dropout(x)` of its token's own adapter."""
    outputs = F.linear(x, maps.weight, maps.bias).split(maps.sizes, dim=-1)
    if branches.a is None:
        return outputs
    dropped = keyed_dropout(x, tokens.keys, branches.salt, shape.dropout) if shape.dropout else x
    inner = grouped(dropped, branches.a, tokens) * shape.scale
    parts = iter(inner.split([b.shape[2] for b in branches.b if b is not None], dim=-1))
    return tuple(
        out if b is None else out + grouped(next(parts), b, tokens)
        for out, b in zip(outputs, branches.b, strict=True)
    )  # fmt: skip


def grouped(x: Tensor, weights: Tensor, tokens: Tokens) -> Tensor:
    """x [tokens, inputs] and weights [slots, outputs, inputs] -> [tokens, outputs]: each token by its slot's matrix."""
    if tokens.spans is None:
        return grouped_mm(x, weights.transpose(1, 2), offs=tokens.ends)
    parts = zip(x.split(tokens.spans), weights, strict=True)
    return torch.cat([F.linear(part, weight) for part, weight in parts])


grouped_mm: Callable[..., Tensor] = getattr(F, "grouped_mm", None) or getattr(torch, "_grouped_mm", None)  # pyright: ignore[reportAssignmentType] None is found by `why_no_grouped`


def why_no_grouped(device: torch.device, dtype: torch.dtype, widths: Sequence[int]) -> str:
    """ "" where torch's grouped product takes such tensors on a GPU, else why not. `widths`: ranks, inputs, outputs."""
    if grouped_mm is None:
        return "this torch has no grouped product"
    if dtype != torch.bfloat16:
        return f"the grouped product takes bfloat16, not {dtype}"
    # Before torch.nn.functional.grouped_mm, the operator was for Hopper alone.
    least = (8, 0) if hasattr(F, "grouped_mm") else (9, 0)
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < least:
        return "this GPU is too old for the grouped product"
    odd = sorted({width for width in widths if width % 8})  # rows must begin at multiples of 16 bytes
    return f"ranks and widths must be multiples of 8: {odd}" if odd else ""


def keyed_dropout(x: Tensor, keys: Tensor, salt: Tensor, p: float) -> Tensor:
    """Dropout of x [tokens, width] that a token's key, the salt and the channel decide, and nothing else: neither the
    tokens beside it nor what was drawn before. The backward pass computes the mask again instead of keeping it."""
    channels = torch.arange(x.shape[-1], dtype=torch.int32, device=x.device) * GOLDEN
    bits = mix(mix(keys + salt)[:, None] + channels)
    return torch.where((bits & 0x7FFFFFFF) >= int(p * 2**31), x * (1 / (1 - p)), 0.0)


def mix(bits: Tensor) -> Tensor:
    """Spread every bit of 32-bit integers over all others; overflow wraps around. torch's shifts keep the sign: the
    masks take it away."""
    bits = (bits ^ ((bits >> 16) & 0xFFFF)) * MIX_1
    bits = (bits ^ ((bits >> 13) & 0x7FFFF)) * MIX_2
    return bits ^ ((bits >> 16) & 0xFFFF)


@dataclass(slots=True)
class Laid:
    """Sequences end to end, sorted by slot. `ids` and `positions` [tokens]; `bounds`: where each begins;
    `tokens`: whose they are. `places` [wanted]: whose last states are wanted, sorted by slot; `wanted`: whose they are.
    `gathered`: the keys of segments with ancestors, as `packed.Packed.keys`."""

    ids: Tensor
    positions: Tensor
    bounds: Bounds
    tokens: Tokens
    places: Tensor
    wanted: Tokens
    gathered: Tensor | None = None


Before = Callable[..., tuple[Tensor, Tensor, Tensor]]
Between = Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]
After = Callable[..., Tensor]


@functools.cache
def compiled() -> tuple[Before, Between, After]:
    """The three functions compiled, once a process."""
    # Each number of slots, rank and dropout is a graph of its own, and more than torch's 8 are no fault here.
    dynamo = cast(Any, torch)._dynamo.config
    dynamo.recompile_limit = max(GRAPHS, dynamo.recompile_limit)
    compile_ = functools.partial(torch.compile, dynamic=False, fullgraph=True)
    return compile_(before), compile_(between), compile_(after)


class StackedForward:
    """The forward pass of a bare base model with a stack of adapters. `leaves` are the stack's tensors that it reads,
    to be differentiated by; `leaf_gradients` the places of their gradients in the stack."""

    def __init__(self, causal: PreTrainedModel, stack: AdapterStack, *, compile_layers: bool) -> None:
        """Raises ValueError, with the reason, where `layers` does not compute this model, or where an adapted map is
        none of its seven."""
        reason = layers.belongs(causal)
        if reason:
            raise ValueError(reason)
        self._body = cast(Any, causal.base_model)
        self._stack = stack
        self.leaves: list[Tensor] = []
        self.leaf_gradients: list[Tensor] = []
        self._taken: set[str] = set()
        self._layers = self._collect(causal)
        if self._taken != set(stack.by_name):
            raise ValueError("the adapters change more than the seven maps of a layer")
        base = layers.shape_of(causal)
        self._shape = StackedShape(base, stack.shape.dropout, stack.shape.scale)
        self._scale = base.head_dim**-0.5
        self._before, self._between, self._after = compiled() if compile_layers else (before, between, after)

    @property
    def widths(self) -> list[int]:
        """Ranks, inputs and outputs of all adapted maps."""
        return [size for place in self._stack.shape.places for size in place.shape]

    def hidden(self, laid: Laid, *, training: bool = True) -> Tensor:
        """Last hidden states, final norm applied, at `laid.places`: [wanted, hidden]. `training`: dropout on."""
        shape = self._shape if training else self._shape._replace(dropout=0.0)
        body, tokens = self._body, _loose_tokens(laid.tokens)
        x = body.embed_tokens(laid.ids)
        if training:
            x.requires_grad_()  # the first layer is then like all others, and one compiled graph serves them
        cos, sin = (loose(part[0]) for part in body.rotary_emb(x, laid.positions[None]))
        q, k, v = self._before(loose(x), cos, sin, tokens, self._layers[0], shape)
        for layer, following in zip(self._layers, self._layers[1:], strict=False):
            attended = loose(self._attend(q, k, v, laid))
            x, q, k, v = self._between(loose(x), attended, cos, sin, tokens, layer, following, shape)
        attended = self._attend(q, k, v, laid)
        x, attended = x.index_select(0, laid.places), attended.index_select(0, laid.places)
        return body.norm(self._after(loose(x), loose(attended), _loose_tokens(laid.wanted), self._layers[-1], shape))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, laid: Laid) -> Tensor:
        if laid.gathered is not None:
            k, v = k[laid.gathered], v[laid.gathered]
        return attend(q, k, v, laid.bounds, self._scale)

    def _collect(self, causal: PreTrainedModel) -> list[StackedLayer]:
        blocks = list(cast(Any, causal.base_model).layers)
        names = {id(module): name for name, module in causal.named_modules()}
        salts = torch.arange(4 * len(blocks), dtype=torch.int32, device=causal.device)
        salts = mix(salts * GOLDEN).split(1)
        return [
            StackedLayer(base, *(
                self._branches(names[id(block)], maps, salts[4 * number + i]) for i, maps in enumerate(SHARING)
            ))
            for number, (block, base) in enumerate(zip(blocks, layers.collect(causal), strict=True))
        ]  # fmt: skip

    def _branches(self, block: str, maps: Sequence[str], salt: Tensor) -> Branches:
        modules = [f"{block}.{name}" for name in maps]
        adapted = {place.module for place in self._stack.shape.places}
        found = [module for module in modules if module in adapted]
        if not found:
            return Branches(None, (None,) * len(maps), salt)
        a = self._leaf([self._name(module, "A") for module in found])
        b = tuple(self._leaf([self._name(module, "B")]) if module in adapted else None for module in modules)
        return Branches(a, b, salt)

    def _name(self, module: str, part: str) -> str:
        return next(p.name for p in self._stack.shape.places if p.module == module and p.part == part)

    def _leaf(self, names: Sequence[str]) -> Tensor:
        self._taken.update(names)
        leaf = self._stack.side_by_side(self._stack.working, names).detach().requires_grad_()
        self.leaves.append(leaf)
        self.leaf_gradients.append(self._stack.side_by_side(self._stack.gradients, names))
        return leaf


def _loose_tokens(tokens: Tokens) -> Tokens:
    return tokens._replace(keys=loose(tokens.keys))
