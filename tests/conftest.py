"""Fixtures that several test files use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.support")  # its asserts say what they compared, as a test's do

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder that holds `data/` and `reference/`: $BYSTANDER_DATA, else `shared` beside the repository."""
    given = os.environ.get("BYSTANDER_DATA")
    folder = Path(given) if given else ROOT.parent / "shared"
    if not (folder / "data").is_dir():
        pytest.skip(f"no data at {folder}: set BYSTANDER_DATA to the folder that holds data/ and reference/")
    return folder


@pytest.fixture(scope="session")
def embedded() -> Path:
    """The embedded model's checkpoint; fetched once a machine. Skips where it is not cached and cannot be fetched."""
    from bystander.core.errors import ModelError
    from bystander.lm.embedded import checkpoint_path

    try:
        return checkpoint_path()
    except ModelError as error:
        pytest.skip(f"the embedded model is not to be had here: {error}")


@pytest.fixture(scope="session")
def tokenizer(embedded: Path):
    """The embedded model's tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(embedded)


@pytest.fixture(scope="session")
def tiny_checkpoint(embedded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A randomly initialized model of three small layers with the embedded model's tokenizer: for tests in which
    weights do not matter. Load it with `lm.model.load(str(path))`."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tiny") / "tiny-llama"
    tokenizer = AutoTokenizer.from_pretrained(embedded)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True, initializer_range=0.2,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_run(embedded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, with its report, of the study file `study/tiny.yaml` beside it. Who changes something copies it."""
    from bystander.engine.run import run_study
    from bystander.results.results import Results
    from bystander.study.config.study import load
    from tests.support.study_tiny import make_model, write_study

    folder = tmp_path_factory.mktemp("tiny_run")
    run_study(load(str(write_study(folder / "study", make_model(folder / "model")))), folder / "run")
    Results.open(folder / "run").report()
    return folder / "run"


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Bits are compared, between processes too: none of them may split a sum in another way."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
