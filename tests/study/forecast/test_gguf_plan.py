"""A plan with a GGUF knows the model's shape and tokens from the header alone, and asks no revision of a local file."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from bystander.core.errors import ModelError
from bystander.core.records import Context
from bystander.lm.gguf_header import local_file, read_header
from bystander.lm.local_tokenizer import local_tokenizer
from bystander.lm.tokens import render_prompt
from bystander.study.config.study import load
from bystander.study.forecast.open_settings import open_settings
from bystander.study.forecast.throughput import known_shape, shape_of
from bystander.study.forecast.workload import counter_for
from tests.support.small_gguf import SIZES, Small, write

CASES = [("llama", "smollm"), ("llama", "llama-bpe"), ("qwen2", "qwen2")]


@pytest.fixture(params=CASES, ids="-".join)
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Small:
    return write(tmp_path / "a[1] {b}*?.gguf", *request.param)


def header_alone(small: Small, tmp_path: Path) -> Path:
    """The file without its weights."""
    reader = gguf.GGUFReader(small.path)
    path = tmp_path / "header.gguf"
    path.write_bytes(small.path.read_bytes()[: int(reader.data_offset)])
    return path


def test_the_header_is_what_the_library_reads(small: Small, tmp_path: Path):
    header, reader = read_header(header_alone(small, tmp_path)), gguf.GGUFReader(small.path)
    theirs = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    assert header.fields == theirs
    assert header.shapes == {tensor.name: tuple(tensor.shape.tolist()) for tensor in reader.tensors}


def test_shape_and_tokens_without_the_weights(small: Small, tmp_path: Path):
    path = header_alone(small, tmp_path)
    shape = shape_of(str(path))
    assert (shape.hidden, shape.inner, shape.layers) == (
        SIZES["hidden_size"],
        SIZES["intermediate_size"],
        SIZES["num_hidden_layers"],
    )
    assert shape.kv == SIZES["hidden_size"] // SIZES["num_attention_heads"] * SIZES["num_key_value_heads"]
    assert shape.parameters == sum(value.numel() for value in small.model.parameters())
    assert known_shape(str(path))
    counter = counter_for(str(path))
    for text in ("What is rain? It is 2024.", "x == 12345;\n    return", ""):
        assert counter.count(text) == len(small.core.encode(text, add_special_tokens=False).ids)
    assert counter.exact
    prompt = render_prompt(local_tokenizer(str(path)), Context("persona", "x", "Be."), "Hi")
    assert (
        prompt
        == small.core.encode(
            "<|im_start|>system\nBe.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        ).ids
    )


def test_a_local_file_has_no_revision_and_one_of_the_hub_has(small: Small):
    def asked(name: str) -> list[str]:
        return [one.id for one in open_settings(load("quickstart", [f"model.name={name!r}"]))]

    assert "revision" not in asked(str(small.path))
    assert "revision" in asked("Qwen/Qwen2.5-0.5B-Instruct-GGUF:q8.gguf")
    assert local_file("Qwen/Qwen2.5-0.5B-Instruct-GGUF:no-such-file.gguf") is None
    assert not known_shape("Qwen/Qwen2.5-0.5B-Instruct-GGUF:no-such-file.gguf")


def test_a_damaged_header_is_told(small: Small, tmp_path: Path):
    data = header_alone(small, tmp_path).read_bytes()
    path = tmp_path / "damaged.gguf"
    places = np.random.default_rng(3).integers(0, len(data), 40)
    broken = [b"", b"GGUF", b"GGML" + data[4:], data[:4] + b"\x09" + data[5:], *(data[:at] for at in places)]
    for bytes_ in broken:
        path.write_bytes(bytes_)
        with pytest.raises(ModelError, match="damaged"):
            read_header(path)
        assert not known_shape(str(path))
        assert not counter_for(str(path)).exact
