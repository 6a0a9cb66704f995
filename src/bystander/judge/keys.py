"""The judge's key: where it is looked for, and how it is kept out of everything that is written."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

from bystander.core.errors import JudgeError
from bystander.judge.cost import is_local
from bystander.judge.settings import JudgeSettings

# Providers whose variable is not NAME_API_KEY (Inspect's documentation of providers).
VARIABLES: dict[str, str] = {"grok": "XAI_API_KEY", "hf-inference-providers": "HF_TOKEN", "cf": "CLOUDFLARE_API_TOKEN"}
KEYLESS = frozenset({"mockllm", "hf", "vllm", "sglang", "ollama", "llama-cpp-python", "none"})  # run on this machine
LOCAL_KEY = "not-needed"  # what a server on this machine is sent where the user has no key for it
HIDDEN = "[key]"


@dataclass(frozen=True, slots=True)
class Secret:
    """A key. It has no text form: printing it, or a record that holds it, shows `[key]`."""

    value: str = field(repr=False)

    def __str__(self) -> str:
        return HIDDEN


def provider_of(model: str) -> str:
    """ "openai" of "openai/gpt-4o". Raises JudgeError for a name without a provider."""
    provider, slash, rest = model.partition("/")
    if not slash or not provider or not rest:
        raise JudgeError(
            f"judge.model is {model!r}: write it as provider/model, e.g. openai/gpt-4o-2024-08-06 or openai-api/NAME/MODEL"
        )
    if provider == "openai-api" and "/" not in rest:
        raise JudgeError(f"judge.model is {model!r}: an OpenAI-compatible server is named openai-api/NAME/MODEL")
    return provider


def variable_of(settings: JudgeSettings) -> str:
    """The variable that should hold the key."""
    if settings.key_env:
        return settings.key_env
    provider = provider_of(settings.model)
    name = settings.model.split("/")[1] if provider == "openai-api" else provider
    return VARIABLES.get(name, re.sub(r"[^A-Z0-9]", "_", name.upper()) + "_API_KEY")


def find_key(settings: JudgeSettings, folder: Path | None = None) -> Secret | None:
    """The key from the environment, else from `.env` in `folder`, else in the working folder. None for a provider that
    needs none. Raises JudgeError for a missing key, naming the variable and the files."""
    variable = variable_of(settings)
    folders = list(dict.fromkeys(place.absolute() for place in (folder, Path()) if place is not None))
    value = os.environ.get(variable) or next(filter(None, (read_env(place).get(variable) for place in folders)), None)
    if value:
        return Secret(value)
    if provider_of(settings.model) in KEYLESS:
        return None
    if is_local(settings.base_url):
        return Secret(LOCAL_KEY)
    looked = " or ".join(str(place / ".env") for place in folders)
    raise JudgeError(f"the judge {settings.model!r} needs a key: set {variable} in the environment, or in {looked}")


def read_env(folder: Path) -> Mapping[str, str | None]:
    """The variables of `.env` in a folder. Nothing is put into the environment, where child processes and dumps would
    find it. Raises JudgeError for a file without python-dotenv to read it."""
    path = folder / ".env"
    if not path.is_file():
        return {}
    try:
        from dotenv import dotenv_values
    except ImportError:
        raise JudgeError(f"{path} needs python-dotenv to be read: pip install 'bystander[judge]'") from None
    text = path.read_text(encoding="utf-8", errors="replace")
    return dotenv_values(stream=StringIO(text), interpolate=False)  # a key may have a $ in it


def redact(text: str, secrets: Sequence[Secret | None]) -> str:
    """`text` without the keys: servers quote them in their errors. A key cut short by the server ("sk-abc***xyz") goes
    too, wherever eight or more of its leading characters stand."""
    for secret in secrets:
        if secret is None or secret.value == LOCAL_KEY:
            continue
        text = text.replace(secret.value, HIDDEN)
        if len(secret.value) > 12:
            text = re.sub(re.escape(secret.value[:8]) + r"[^\s\"']*", HIDDEN, text)
    return text


def refuse_model_under_test(settings: JudgeSettings, under_test: Sequence[str]) -> None:
    """Raises JudgeError if the judge is the very model that is measured: it would grade its own answers."""
    judge = _plain(settings.model.split("/", 2 if settings.model.startswith("openai-api/") else 1)[-1])
    for name in under_test:
        if judge == _plain(name) or judge.rsplit("/", 1)[-1] == _plain(name).rsplit("/", 1)[-1]:
            raise JudgeError(
                f"the judge {settings.model!r} is the model under test ({name!r}): name another model as the judge"
            )


def _plain(name: str) -> str:
    return name.strip("/").lower()
