"""The scripts that carry packages and a model to a GPU machine without a network, run as documented. Nothing is fetched:
the one package of the bundle is a wheel that the test writes."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from bystander.lm.embedded import GGUF_SHA256
from tests.support.small_gguf import write

ROOT = Path(__file__).resolve().parents[2]
PREPARE, RUN = ROOT / "tools/gpu/prepare.sh", ROOT / "tools/gpu/run.sh"
PACKAGE = "typing_inspection"  # some package that is installed here: its version is asked for

pytestmark = pytest.mark.skipif(not (shutil.which("xz") and shutil.which("bash")), reason="needs bash and xz")


@pytest.fixture
def here(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine whose package index is one folder with one wheel."""
    version = importlib.metadata.version(PACKAGE)
    index = tmp_path / "index"
    index.mkdir()
    info = f"{PACKAGE}-{version}.dist-info"
    with zipfile.ZipFile(index / f"{PACKAGE}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("of_the_bundle.py", "IT_IS = True\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    (tmp_path / "wheels.txt").write_text(f"# a list as wheels.txt\n{PACKAGE}\n\n")
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "python3").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (tools / "python3").chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BYSTANDER", "PIP", "WITH"))}
    return kept | {
        "PYTHON": sys.executable, "WHEELS": str(tmp_path / "wheels.txt"), "STORE": str(tmp_path / "store"),
        "PATH": f"{tools}:{os.environ['PATH']}", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index),
        "PIP_CONFIG_FILE": os.devnull,
    }  # fmt: skip


def run(*command: object, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], env=env, capture_output=True, text=True, check=False, timeout=300)


SAYS = (
    "import os, of_the_bundle, bystander, importlib.metadata as m; from bystander.lm.model import load; "
    "print(load(os.environ['BYSTANDER_GPU_MODEL'], device='cpu').layers, os.environ.get('BYSTANDER_GGUF'), m.version('bystander'))"
)


def test_a_gguf_goes_there_and_is_loaded(tmp_path: Path, here: dict[str, str]) -> None:
    small = write(tmp_path / "my own.gguf", "qwen2", "qwen2")
    done = run(PREPARE, tmp_path / "parts", small.path, env=here)
    assert done.returncode == 0, done.stderr
    done = run(RUN, tmp_path / "parts", "python3", "-c", SAYS, env=here)
    assert done.stdout.split() == ["2", "None", importlib.metadata.version("bystander")], done.stderr
    again = run(RUN, tmp_path / "nowhere", "bystander", "--help", env=here)
    assert again.returncode == 0, again.stderr
    assert "Usage" in again.stdout


def test_a_checkpoint_of_one_s_own_goes_there_in_parts(
    tmp_path: Path, here: dict[str, str], tiny_checkpoint: Path
) -> None:
    parts = tmp_path / "parts"
    parts.mkdir()
    (parts / "part-77").write_text("left from another bundle")
    done = run(PREPARE, parts, tiny_checkpoint, env=here | {"PART_MB": "4"})
    assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in parts.iterdir())
    assert len(names) > 1
    assert names == [f"part-{i:02}" for i in range(len(names))]
    for name in names[:-1]:  # one by one, as they are sent
        one = tmp_path / name
        one.mkdir()
        shutil.move(parts / name, one)
        kept = run(RUN, one, "keep", env=here)
        assert kept.returncode == 0, kept.stderr
        assert name in kept.stdout
    done = run(RUN, parts, "python3", "-c", SAYS, env=here)
    assert done.stdout.split()[:2] == ["3", "None"], done.stderr


def test_the_embedded_model_s_file_is_told_by_its_hash(tmp_path: Path, here: dict[str, str], monkeypatch) -> None:
    """As on a machine whose source says that this file is the embedded model's."""
    small = write(tmp_path / "small.gguf", "llama", "smollm")
    assert run(PREPARE, tmp_path / "parts", small.path, env=here).returncode == 0
    root = tmp_path / "checkout"
    shutil.copytree(ROOT / "tools", root / "tools")
    shutil.copytree(ROOT / "src", root / "src")
    source = root / "src/bystander/lm/embedded.py"
    digest = hashlib.sha256(small.path.read_bytes()).hexdigest()
    source.write_text(source.read_text().replace(GGUF_SHA256, digest))
    done = run(root / "tools/gpu/run.sh", tmp_path / "parts", "bash", "-c", "echo $BYSTANDER_GGUF", env=here)
    assert done.stdout.strip() == str(tmp_path / "store/model/small.gguf"), done.stderr


def test_extras_by_name(tmp_path: Path, here: dict[str, str]) -> None:
    small = write(tmp_path / "small.gguf", "llama", "smollm")
    (tmp_path / "wheels.txt").write_text("# nothing\n")
    done = run(PREPARE, tmp_path / "parts", small.path, env=here | {"WITH": f" {PACKAGE} "})
    assert done.returncode == 0, done.stderr
    assert run(RUN, tmp_path / "parts", "python3", "-c", "import of_the_bundle", env=here).returncode == 0
    done = run(PREPARE, tmp_path / "parts", small.path, env=here | {"WITH": "no-such-package-at-all"})
    assert done.returncode == 2
    assert "no-such-package-at-all is not installed here" in done.stderr


def test_faults_are_said(tmp_path: Path, here: dict[str, str]) -> None:
    (tmp_path / "model.bin").write_bytes(b"something")
    for arguments, says in (
        ((tmp_path / "parts",), "give the folder for the parts and a model"),
        ((tmp_path / "parts", tmp_path / "none.gguf"), "there is no such file or folder"),
        ((tmp_path / "parts", tmp_path / "model.bin"), "is no GGUF"),
        ((tmp_path / "parts", tmp_path), "holds no config.json"),
    ):
        done = run(PREPARE, *arguments, env=here)
        assert (done.returncode, says in done.stderr) == (2, True), done.stderr
    done = run(RUN, tmp_path / "nowhere", "true", env=here)
    assert (done.returncode, "no part of a bundle" in done.stderr) == (2, True), done.stderr
    assert run(RUN, tmp_path, env=here).returncode == 2
