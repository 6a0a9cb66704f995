"""The house of the design: who may import whom, in rooms and in their sub-rooms, what imports without torch, and what
the package offers. An import counts wherever it stands: at the top, in a function, under TYPE_CHECKING."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import bystander

SOURCE = Path(bystander.__file__).parent
CALIBRATION = SOURCE.parents[1] / "calibration"
TESTS = Path(__file__).parent

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
    "geometry": {"core", "lm", "train"},
    "analysis": {"core"},
    "report": {"core", "analysis"},
}
STAGES = set(MAY_IMPORT)
MAY_IMPORT["evals"] = {"core", "personas", "data", "behaviors", "judge", "probe", "lm.tokens"}
MAY_IMPORT["study"] = STAGES
MAY_IMPORT["engine"] = STAGES | {"study"}
MAY_IMPORT["results"] = MAY_IMPORT["engine"] | {"engine"}
MAY_IMPORT["bench"] = MAY_IMPORT["results"] | {"results"}
MAY_IMPORT["cli"] = MAY_IMPORT["bench"] | {"bench"}

# Room -> its floors, from the ground up: a floor imports itself and those before it. A name is a sub-room or a file of
# the room; what is named nowhere stands on the last floor, REST.
REST = "the rest"
FLOORS: dict[str, list[set[str]]] = {
    "study": [{"config"}, {"store"}, {"plan"}, {"forecast"}, {REST}],
    "analysis": [{"stats"}, {"keys", "settings", "grid", "consistency", "pairs", "predictors"}, {"tables"}, {REST}],
    "report": [{"text", "theme", "labels", "inputs", "headline"}, {"figures"}, {REST}],
}
LONGEST = 350  # lines of a file of code
LONGER = {"report/templates/page.js"}  # one script, since the page may load nothing


def module_name(path: Path, above: Path) -> str:
    """The dotted name of a file under the folder `above`."""
    return ".".join(path.relative_to(above).with_suffix("").parts).removesuffix(".__init__")


def files_of(folder: Path) -> dict[str, Path]:
    return {module_name(path, folder.parent): path for path in sorted(folder.rglob("*.py"))}


FILES = files_of(SOURCE)


def named_in(path: Path, name: str) -> Iterator[str]:
    """Every module that the file `path`, itself the module `name`, may mean with an import."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def graph_of(files: Mapping[str, Path]) -> dict[str, set[str]]:
    """Module -> the other modules of `files` that it imports; a name out of a module is that module."""

    def known(name: str) -> str:
        while name and name not in files:
            name = name.rpartition(".")[0]
        return name

    return {name: {known(one) for one in named_in(path, name)} - {name, ""} for name, path in files.items()}


def room_of(name: str) -> str:
    return name.split(".")[1] if name.count(".") else ""


GRAPH = graph_of(FILES)


def test_every_room_imports_only_what_the_table_allows():
    broken = [
        f"{name} imports {other}"
        for name, others in GRAPH.items()
        for other in others
        if room_of(name) in MAY_IMPORT
        and room_of(other) != room_of(name)
        and not {room_of(other), other.removeprefix("bystander.")} & MAY_IMPORT[room_of(name)]
    ]
    assert broken == []


def test_the_table_names_every_room():
    rooms = {path.name for path in SOURCE.iterdir() if path.is_dir() and (path / "__init__.py").is_file()}
    assert rooms == set(MAY_IMPORT)


def floor_of(name: str, room: str) -> int:
    """The floor of a module in its room."""
    part = name.split(".")[2] if name.count(".") > 1 else REST
    floors = FLOORS[room]
    return next((at for at, floor in enumerate(floors) if part in floor), len(floors) - 1)


@pytest.mark.parametrize("room", FLOORS)
def test_sub_rooms_import_only_what_stands_before_them(room: str):
    inside = {name for name in FILES if room_of(name) == room}
    broken = [
        f"{name} imports {other}"
        for name in sorted(inside)
        for other in sorted(GRAPH[name] & inside)
        if floor_of(other, room) > floor_of(name, room)
    ]
    assert broken == []


@pytest.mark.parametrize("room", FLOORS)
def test_the_floors_of_a_room_name_what_is_there(room: str):
    parts = {name.split(".")[2] for name in FILES if room_of(name) == room and name.count(".") > 1}
    named = set().union(*FLOORS[room]) - {REST}
    assert named - parts == set()
    folders = {path.name for path in (SOURCE / room).iterdir() if (path / "__init__.py").is_file()}
    assert folders - named == set()


@pytest.mark.parametrize("folder", [SOURCE, CALIBRATION], ids=lambda folder: folder.name)
def test_no_files_import_each_other_in_a_circle(folder: Path):
    found = circles(graph_of(files_of(folder)))
    assert found == []


def circles(graph: Mapping[str, set[str]]) -> list[str]:
    """One circle of each knot of files, as `a -> b -> a`."""
    left = {name: set(others) for name, others in graph.items()}
    found: list[str] = []
    while True:
        try:
            TopologicalSorter(left).prepare()
        except CycleError as error:
            circle: list[str] = error.args[1]  # each is imported by the next
            found.append(" -> ".join(reversed(circle)))
            left[circle[1]].discard(circle[0])  # cut this one, and look for others
        else:
            return found


def test_the_search_sees_circles():
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert len(circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"e"}, "e": {"d"}})) == 2


def test_the_search_sees_imports_wherever_they_stand(tmp_path: Path):
    (tmp_path / "box").mkdir()
    for name, text in {
        "__init__": "",
        "a": "from box import b",
        "b": "def f():\n    from box.c import x",
        "c": "if TYPE_CHECKING:\n    import box.d",
        "d": "from . import a",
    }.items():
        (tmp_path / "box" / f"{name}.py").write_text(text)
    graph = graph_of(files_of(tmp_path / "box"))
    assert graph == {"box": set(), "box.a": {"box.b"}, "box.b": {"box.c"}, "box.c": {"box.d"}, "box.d": {"box.a"}}


def test_no_file_of_code_is_long():
    lengths = {
        path.relative_to(SOURCE).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for kind in ("py", "js", "css", "html")
        for path in SOURCE.rglob(f"*.{kind}")
    }
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST and name not in LONGER} == {}


def test_tests_lie_as_the_code_does():
    """`tests/<room>/test_<module>.py`; at the top what is about the whole repository."""
    assert {path.stem for path in TESTS.glob("*.py")} <= {
        "__init__",
        "conftest",
        "test_docs",
        "test_house",
        "test_words",
    }
    folders = {path.name for path in TESTS.iterdir() if path.is_dir() and any(path.rglob("*.py"))}
    assert folders - set(MAY_IMPORT) <= {"support", "reference", "traps", "examples", "calibration", "gpu", "tools"}


def test_no_test_imports_from_a_test():
    """What two tests share is in `tests/support`: a test can be read, moved and deleted by itself."""
    broken = [
        f"{path.relative_to(TESTS)} imports {name}"
        for path in sorted(TESTS.rglob("*.py"))
        for name in named_in(path, module_name(path, TESTS.parent))
        if any(part.startswith("test_") for part in name.split(".")[:-1])
    ]
    assert broken == []


def test_rooms_without_a_model_import_without_torch():
    modules = [
        name for name in FILES if room_of(name) in ("core", "personas", "data", "analysis", "report", "behaviors")
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


def test_the_table_for_contributors_is_this_one():
    text = (SOURCE.parents[1] / "CONTRIBUTING.md").read_text()
    rows = re.findall(r"^\| `(\w+)/` \| [^|]+ \| ([^|]+) \|$", text, re.MULTILINE)
    named = {room: {part.strip() for part in may.split(";")[0].split(",")} - {"nothing"} for room, may in rows}
    assert named.keys() == MAY_IMPORT.keys()
    for room in (*STAGES, "evals"):
        assert named[room] == MAY_IMPORT[room], room
