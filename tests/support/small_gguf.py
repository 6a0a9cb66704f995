"""Small GGUF files for tests, written with the gguf library as llama.cpp's converter writes them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import torch
from tokenizers import Tokenizer as Core
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from tests.support.small_tokenizer import CHATML, SPECIAL, core_of

SIZES = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "initializer_range": 0.2, "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 50000.0},
}  # fmt: skip
NAMES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
}  # fmt: skip


@dataclass
class Small:
    """A file, and the model and tokenizer that it was written from."""

    path: Path
    model: PreTrainedModel
    core: Core


def write(
    path: Path, architecture: str, pre: str, *, quantized: bool = True, tied: bool = True, **more: object
) -> Small:
    """A random model of an architecture as a GGUF; `more`: fields to add, or with None to leave out."""
    core = core_of(pre)
    torch.manual_seed(7)
    kind, config = (Qwen2ForCausalLM, Qwen2Config) if architecture == "qwen2" else (LlamaForCausalLM, LlamaConfig)
    model = kind(config(vocab_size=core.get_vocab_size(), tie_word_embeddings=tied, **SIZES)).eval()
    writer = gguf.GGUFWriter(path, architecture)
    _describe(writer, architecture, pre, core, more)
    for name, value in model.state_dict().items():
        if tied and name == "lm_head.weight":
            continue
        stem, _, suffix = name.rpartition(".")
        parts = stem.split(".", 3)
        own = f"blk.{parts[2]}.{NAMES[parts[3]]}" if stem.startswith("model.layers.") else NAMES[stem]
        array = value.float().numpy()
        if architecture == "llama" and own.rsplit(".", 1)[-1] in ("attn_q", "attn_k"):
            heads = SIZES["num_attention_heads" if own.endswith("attn_q") else "num_key_value_heads"]
            array = array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:]).swapaxes(1, 2)
            array = array.reshape(value.shape)
        array = np.ascontiguousarray(array)
        if quantized and array.ndim == 2:
            kind_of = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(f"{own}.{suffix}", gguf.quants.quantize(array, kind_of), raw_dtype=kind_of)
        else:
            writer.add_tensor(f"{own}.{suffix}", array)
    for name, array in more.items():
        if isinstance(array, np.ndarray):
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Small(path, model, core)


def _describe(writer: gguf.GGUFWriter, architecture: str, pre: str, core: Core, more: dict[str, object]) -> None:
    writer.add_name("Small")
    writer.add_block_count(SIZES["num_hidden_layers"])
    writer.add_context_length(SIZES["max_position_embeddings"])
    writer.add_embedding_length(SIZES["hidden_size"])
    writer.add_feed_forward_length(SIZES["intermediate_size"])
    writer.add_head_count(SIZES["num_attention_heads"])
    writer.add_head_count_kv(SIZES["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(SIZES["rms_norm_eps"])
    writer.add_rope_freq_base(SIZES["rope_parameters"]["rope_theta"])
    writer.add_tokenizer_model(str(more.get("model", "gpt2")))
    writer.add_tokenizer_pre(pre)
    tokens = [core.id_to_token(i) for i in range(core.get_vocab_size())]
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in SPECIAL else 1 for token in tokens])
    merges = json.loads(core.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(int(str(more.get("eos", 2))))
    writer.add_pad_token_id(0)
    if more.get("template", True):
        writer.add_chat_template(CHATML)
    if "scaling" in more:
        writer.add_string(f"{architecture}.rope.scaling.type", str(more["scaling"]))
