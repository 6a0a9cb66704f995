"""Which base model an adapter is for: decided by weights where they are known, else by shapes; a name decides nothing."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from bystander.core.errors import ModelError
from bystander.lm.adapters import AdapterFiles
from bystander.lm.weights import checkpoint_hash


@dataclass(frozen=True, slots=True)
class Base:
    """The model at hand: what it may be called, the name that a person gave it first, and the hash of its weights."""

    names: tuple[str, ...]
    hash: str


def base_notes(files: AdapterFiles, base: Base, *, base_ok: bool) -> tuple[str, ...]:
    """What is to be known of an adapter's base and the one at hand; () where they are the same.

    An adapter that bystander saved says the hash of its base's weights. For any other the weights that its base's name
    stands for are looked for on this machine (a folder, the Hub's cache); nothing is fetched. Raises ModelError where
    weights are known and differ, unless `base_ok`. Shapes are compared when the adapter is put on.
    """
    wanted = str(files.config.base_model_name_or_path or "")
    named = f"its base is called {wanted}, this model {base.names[0]}"
    if files.base_hash:
        known, where = files.base_hash, "the hash of its base's weights stands in the adapter"
    elif _same_name(wanted, base):
        return ()
    else:
        known, where = _weights_called(wanted)
    if known == base.hash:
        return () if _same_name(wanted, base) else (f"{named}; the weights are the same ({where}).",)
    if not known:
        called = named if wanted else f"it does not say what its base is called; this model is {base.names[0]}"
        return (
            f"{called}. Its {len(files.tensors)} tensors have this model's shapes; the weights were not compared, since "
            "those of its own base are not on this machine. On another base its numbers mean nothing.",
        )
    if base_ok:
        return (f"{named}; the weights differ ({where}), and it was put on all the same, as asked.",)
    raise ModelError(
        f"adapter {files.path}: {named}, and the weights differ ({where}). Load its own base model, or say that this "
        "base is meant (--base-ok; in Python base_ok=True)."
    )


def _same_name(wanted: str, base: Base) -> bool:
    if wanted.casefold() in {name.casefold() for name in base.names}:
        return True
    here = Path(wanted).expanduser()
    return bool(wanted) and here.is_dir() and any(_same_folder(here, name) for name in base.names)


def _same_folder(folder: Path, name: str) -> bool:
    other = Path(name).expanduser()
    return bool(name) and other.is_dir() and other.resolve() == folder.resolve()


def _weights_called(name: str) -> tuple[str, str]:
    """(hash of the weights that a name stands for on this machine, where they were found); two empty texts for none."""
    folder = Path(name).expanduser()
    where = f"compared with {folder}"
    if not (name and (folder / "config.json").is_file()):
        found = None
        with contextlib.suppress(HFValidationError):
            found = try_to_load_from_cache(name, "config.json") if name else None
        if not isinstance(found, str):
            return "", ""
        folder, where = Path(found).parent, "compared with the Hub's cache"
    try:
        return checkpoint_hash(folder), where
    except (ModelError, OSError):  # a config without its weights
        return "", ""
