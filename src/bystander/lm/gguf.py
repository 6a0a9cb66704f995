"""Models in GGUF files, made ordinary: dequantized once into the cache as a checkpoint that anything can load.

What is computed with is then a model like any other, trained and saved as such; a number on it names the hash of the
checkpoint. Weights are read by the `gguf` library and placed here, since transformers marks a model that it loads from
a GGUF as quantized, and differs between versions in what else it reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from huggingface_hub import hf_hub_download
from numpy.typing import NDArray
from safetensors import safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from bystander.core.errors import ModelError
from bystander.lm.cache import Notify, kept_checkpoint
from bystander.lm.gguf_tokenizer import tokenizer_of
from bystander.lm.rope import llama3_rope
from bystander.lm.tensor_file import save_tensors
from bystander.lm.weights import remembered_sha256

VERSION = "v1"  # raise it when the conversion changes
CONFIGS: dict[str, type[PretrainedConfig]] = {"llama": LlamaConfig, "qwen2": Qwen2Config}
WHOLE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
IN_A_LAYER = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
ROPE_FACTORS = "rope_freqs.weight"  # no weight of the model: how its positions are stretched
# Weights of a model that is small are kept as they are in the file; larger ones in half the room.
FLOAT32_UP_TO = 300_000_000
CHECKED = 12  # tensors that are compared with the file once the checkpoint is written


def checkpoint_of(name: str, revision: str | None = None, notify: Notify | None = None) -> Path:
    """The folder of the ordinary checkpoint that a GGUF makes (a local `FILE.gguf`, or `OWNER/NAME:FILE.gguf` of the
    Hub), made at the first call.

    Raises ModelError for a file that is not there, that is no GGUF, whose architecture or tokenizer is not known here,
    or whose weights are not in the checkpoint as the file has them.
    """
    file = _file(name, revision)
    digest = remembered_sha256(file)
    say = notify or (lambda _line: None)

    def make(_scratch: Path, target: Path) -> None:
        say(f"dequantizing {file.name} to an ordinary checkpoint (once)")
        try:
            convert(file, target)
        except ModelError as error:
            raise ModelError(f"model {name}: {error}") from error

    # Six-bit weights of a large model become sixteen bits, eight-bit ones of a small model thirty-two.
    return kept_checkpoint(f"model {name}", f"gguf-{digest[:16]}-{VERSION}", 4 * file.stat().st_size, make)


def _file(name: str, revision: str | None) -> Path:
    local = Path(name).expanduser()
    if local.is_file():
        return local
    owner, _, file = name.partition(":")
    if not file or owner.count("/") != 1:
        raise ModelError(
            f"model {name}: there is no such file. Give the path of a GGUF, or OWNER/NAME:FILE.gguf for one on the Hub."
        )
    try:
        return Path(hf_hub_download(owner, file, revision=revision))
    except (OSError, ValueError) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(
            f"model {name}: {file} cannot be had from {owner} on the Hub ({first}). Copy the file to this machine and "
            "give its path."
        ) from error


def convert(file: Path, target: Path) -> None:
    """GGUF -> safetensors, configuration and tokenizer in `target`, checked against the file."""
    reader = _reader(file)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    tokenizer = tokenizer_of(fields)
    config = _config(fields, tensors, tokenizer)
    dtype = cast(torch.dtype, config.dtype)
    weights = {
        _place(name): torch.from_numpy(_values(tensor, config)).to(dtype)
        for name, tensor in tensors.items()
        if name != ROPE_FACTORS
    }
    _check_shapes(config, weights)
    target.mkdir(parents=True)
    save_tensors(weights, target / "model.safetensors", {"format": "pt"})
    config.save_pretrained(target)
    _generation(fields, config).save_pretrained(target)
    tokenizer.model_max_length = config.max_position_embeddings
    tokenizer.save_pretrained(target)
    check(file, target)


def _reader(file: Path) -> GGUFReader:
    try:
        return GGUFReader(file)
    except Exception as error:  # the library raises whatever a broken file leads it to
        raise ModelError(f"{file.name} cannot be read as a GGUF: {error}. Copy it again.") from error


def _config(
    fields: Mapping[str, Any], tensors: Mapping[str, Any], tokenizer: PreTrainedTokenizerFast
) -> PretrainedConfig:
    kind = str(fields.get("general.architecture"))
    if kind not in CONFIGS:
        raise ModelError(f"its architecture is {kind!r}; known are {', '.join(CONFIGS)}. Use an ordinary checkpoint.")

    def told(name: str, default: Any = None) -> Any:
        value = fields.get(f"{kind}.{name}", default)
        if value is None:
            raise ModelError(f"it does not say {kind}.{name}: the file is damaged or of an old kind.")
        return value

    if told("expert_count", 0) or str(told("rope.scaling.type", "none")) != "none":
        raise ModelError("it has experts or stretched positions, which bystander does not read from a GGUF.")
    heads, hidden = int(told("attention.head_count")), int(told("embedding_length"))
    theta = _decimal(told("rope.freq_base", 10000.0))
    rope = llama3_rope(_plain(tensors[ROPE_FACTORS]), theta) if ROPE_FACTORS in tensors else {"rope_type": "default"}
    settings: dict[str, Any] = {
        "vocab_size": int(tensors["token_embd.weight"].shape[1]),
        "hidden_size": hidden,
        "intermediate_size": int(told("feed_forward_length")),
        "num_hidden_layers": int(told("block_count")),
        "num_attention_heads": heads,
        "num_key_value_heads": int(told("attention.head_count_kv", heads)),
        "max_position_embeddings": int(told("context_length")),
        "rms_norm_eps": _decimal(told("attention.layer_norm_rms_epsilon")),
        "rope_parameters": {**rope, "rope_theta": theta},
        "tie_word_embeddings": "output.weight" not in tensors,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    if kind == "llama":
        settings |= {"head_dim": int(told("rope.dimension_count", hidden // heads))}
        settings |= {"unk_token_id": tokenizer.unk_token_id} if tokenizer.unk_token_id is not None else {}
    config = CONFIGS[kind](**settings)
    config.architectures = [{"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}[kind]]
    parameters = sum(int(np.prod(tensor.shape)) for tensor in tensors.values())
    config.dtype = torch.float32 if parameters <= FLOAT32_UP_TO else torch.bfloat16
    return config


def _decimal(value: float) -> float:
    """A number that was rounded to float32 as it was written: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _plain(tensor: Any) -> NDArray[np.float32]:
    return np.array(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)


def _values(tensor: Any, config: PretrainedConfig) -> NDArray[np.float32]:
    """A tensor's values in the order that transformers has them: for queries and keys of Llama, rotary pairs stand side
    by side in the file, and in halves there."""
    values = _plain(tensor)
    heads = _paired(tensor.name, config)
    if not heads:
        return values
    pairs = values.reshape(heads, values.shape[0] // heads // 2, 2, *values.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(values.shape))


def _paired(name: str, config: PretrainedConfig) -> int:
    """The number of heads of a tensor that holds rotary pairs side by side; 0 for any other."""
    if config.model_type != "llama":
        return 0
    if ".attn_q." in name:
        return int(config.num_attention_heads)
    return int(config.num_key_value_heads) if ".attn_k." in name else 0


def _place(name: str) -> str:
    """The name that transformers has for a tensor."""
    stem, _, kind = name.rpartition(".")
    parts = stem.split(".")
    if len(parts) == 3 and parts[0] == "blk" and parts[2] in IN_A_LAYER:
        return f"model.layers.{parts[1]}.{IN_A_LAYER[parts[2]]}.{kind}"
    if stem in WHOLE:
        return f"{WHOLE[stem]}.{kind}"
    raise ModelError(f"it holds the tensor {name}, of which bystander does not know what it is for.")


def _check_shapes(config: PretrainedConfig, weights: Mapping[str, torch.Tensor]) -> None:
    with torch.device("meta"):
        model = cast(torch.nn.Module, AutoModelForCausalLM.from_config(config))
    wanted = {name: value.shape for name, value in model.named_parameters()}  # a tied head is not named twice
    found = {name: value.shape for name, value in weights.items()}
    wrong = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if wrong:
        name = wrong[0]
        shapes = [None if shape is None else list(shape) for shape in (found.get(name), wanted.get(name))]
        raise ModelError(
            f"{len(wrong)} tensors are not those of its architecture: {name} is {shapes[0]}, expected {shapes[1]}."
        )


def _generation(fields: Mapping[str, Any], config: PretrainedConfig) -> GenerationConfig:
    """The tokens that end an answer: the turn's, what the file calls the end, and the padding, which nobody means to say."""
    named = [fields.get(f"tokenizer.ggml.{role}_token_id") for role in ("eos", "eot")]
    ends = list(
        dict.fromkeys(int(end) for end in (config.eos_token_id, *named, config.pad_token_id) if end is not None)
    )
    return GenerationConfig(
        bos_token_id=config.bos_token_id,
        eos_token_id=ends[0] if len(ends) == 1 else ends,
        pad_token_id=config.pad_token_id,
    )


def check(file: Path, checkpoint: Path) -> None:
    """Raises ModelError unless some of the checkpoint's tensors, spread over all, are the file's own values."""
    tensors = [tensor for tensor in _reader(file).tensors if tensor.name != ROPE_FACTORS]
    config = AutoConfig.from_pretrained(checkpoint)
    with safe_open(checkpoint / "model.safetensors", framework="pt") as kept:
        for tensor in tensors[:: max(1, len(tensors) // CHECKED)]:
            ours = cast(torch.Tensor, kept.get_tensor(_place(tensor.name)))
            theirs = torch.from_numpy(_plain(tensor)).to(ours.dtype)
            heads = _paired(tensor.name, config)
            if heads:  # back to pairs side by side
                halves = ours.reshape(heads, 2, ours.shape[0] // heads // 2, *ours.shape[1:])
                ours = halves.transpose(1, 2).reshape(ours.shape)
            if not torch.equal(ours, theirs):
                raise ModelError(f"the checkpoint's {tensor.name} is not what the file holds: the conversion is wrong.")
