"""The house of the design: who may import whom, what imports without torch, and what the package offers."""

import ast
import subprocess
import sys
from pathlib import Path

import bystander

SOURCE = Path(bystander.__file__).parent

# Room -> the rooms that it may import. The table of the design, to the letter.
MAY_IMPORT = {
    "core": set(),
    "personas": {"core"},
    "data": {"core"},
    "lm": {"core", "personas"},
    "behaviors": {"core", "personas", "data"},
    "design": {"core", "personas", "data", "behaviors", "lm.tokens"},
    "train": {"core", "lm", "design"},
    "judge": {"core"},
    "probe": {"core", "lm", "behaviors", "data", "judge"},
    "geometry": {"core", "lm"},
    "analysis": {"core"},
    "report": {"core", "analysis"},
}


def imported(path: Path) -> set[str]:
    """First-party modules that a file imports anywhere, as `room` or `room.module`."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        found |= {name.removeprefix("bystander.") for name in names if name.startswith("bystander.")}
    return found


def test_every_room_imports_only_what_the_table_allows():
    broken = [
        f"{path.relative_to(SOURCE)} imports {name}"
        for room, allowed in MAY_IMPORT.items()
        for path in (SOURCE / room).rglob("*.py")
        for name in imported(path)
        if name.split(".")[0] != room and name.split(".")[0] not in allowed and name not in allowed
    ]
    assert broken == []


def test_the_table_names_every_room():
    rooms = {path.name for path in SOURCE.iterdir() if path.is_dir() and (path / "__init__.py").is_file()}
    assert rooms == {*MAY_IMPORT, "study", "bench", "cli"}


def test_rooms_without_a_model_import_without_torch():
    modules = [
        "bystander." + ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        for room in ("core", "personas", "data", "analysis", "report", "behaviors")
        for path in (SOURCE / room).rglob("*.py")
    ]
    code = "import sys, importlib\n" + "".join(f"importlib.import_module({m!r})\n" for m in modules)
    code += "assert 'torch' not in sys.modules, 'torch was imported'\n"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_public_surface_is_exactly_this():
    assert sorted(bystander.__all__) == [
        "Analysis", "BystanderError", "DataError", "DesignError", "JudgeError", "ModelError", "Results", "StoreError",
        "Study", "StudyError", "analyze", "analyze_table",
    ]  # fmt: skip
    assert all(getattr(bystander, name) is not None for name in bystander.__all__)
