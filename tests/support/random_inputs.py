"""Broken files, settings, adapters and paths as command lines, by a seeded generator: input `n` is always the same."""

from __future__ import annotations

import csv
import io
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support.study_tiny import write_study

NO_MARKER = ("sweep=null", "gate=null", "hypotheses=null")  # for a study of another behavior than the tiny one's
COMMANDS = ("audit", "plan", "preflight", "probe", "analyze")
ODD: list[object] = [
    None, True, False, 0, -1, 1, 2, 10**30, -(10**30), 0.5, 1e-9, 1e308, float("nan"), float("inf"), "", " ", "x", "~", "../..",
    "\u202e", "a\u0300", "日本", "\n", "%s", "{}", "[/]", "[red]x", "$HOME", "villain", "marker", "choice", "judged", "cpu", "auto",
    "builtin", [], [[]], [None], ["villain"], ["villain", "villain"], {}, {"a": 1}, {"kind": "local"}, {"kind": "moon"},
    {"model": "anthropic/x"}, {"positive": 0}, {"questions": 1}, {"text": "[X]"}, "x" * 5000, list(range(200)), "1e-3", "2024-01-01",
]  # fmt: skip
NAMES = [
    "nowhere", "", ".", "..", "a b", "a[1]", "*", "?", "x" * 300, "é", "日本", "a\nb", "-x", "--out", "~nobody/x", "/dev/null", "/",
    "/proc/self/mem", "con.yaml", "a.yaml/b", "\udcff", "{x}", "$(x)", "a'b\"c", "\u202e", "C:\\x",
]  # fmt: skip
CELLS = [
    "", "nan", "inf", "-inf", "1", "0", "0.5", "-0.2", "1e999", "villain", "persona", "é", "\0", '"', "x" * 2000, "1,5", "12%", "true",
    "2024-01-01", " 0.1 ",
]  # fmt: skip
COLUMNS = [
    "source",
    "persona",
    "leakage",
    "similarity",
    "cosine",
    "layer",
    "seed",
    "arm",
    "value",
    "",
    "source",
    "n",
    "rho",
    "role",
]


@dataclass(frozen=True)
class RandomInput:
    """One command line, and what was broken for it."""

    words: list[str]
    what: str


class Inputs:
    """Makes inputs from a sound model and a sound adapter. Each is put into a folder of its own under `room`."""

    def __init__(self, model: Path, adapter: Path, room: Path) -> None:
        self.model, self.adapter, self.room = model, adapter, room

    def make(self, number: int) -> RandomInput:
        """Input `number`: the command goes round, what is broken is drawn."""
        draw = random.Random(f"input {number}")
        folder = self.room / str(number)
        folder.mkdir()
        command = COMMANDS[number % len(COMMANDS)]
        ways = {"probe": self._probe, "analyze": self._analyze}
        return ways.get(command, self._study)(draw, folder, command)

    def _study(self, draw: random.Random, folder: Path, command: str) -> RandomInput:
        ways: list[Callable[[random.Random, Path, Path], tuple[list[str], str]]] = [
            self._odd_setting, self._odd_setting, self._odd_set, self._cut, self._odd_personas, self._odd_model, self._odd_data, self._odd_path,
        ]  # fmt: skip
        file = write_study(folder / "study", self.model)
        extra, what = draw.choice(ways)(draw, folder, file)
        where = [] if extra[:1] == [""] else [str(file)]
        return RandomInput([command, *where, *[word for word in extra if word != ""]], what)

    def _odd_setting(self, draw: random.Random, folder: Path, file: Path) -> tuple[list[str], str]:
        data: Any = yaml.safe_load(file.read_text())
        said: list[str] = []
        for _ in range(draw.randint(1, 3)):
            place: Any = data
            while True:
                key = draw.choice(list(place)) if isinstance(place, dict) else draw.randrange(len(place))
                inner = place[key]
                if isinstance(inner, dict | list) and inner and draw.random() < 0.7:
                    place = inner
                    continue
                break
            if isinstance(place, dict) and draw.random() < 0.2:
                del place[key]
                said.append(f"no {key}")
            else:
                place[key] = draw.choice(ODD)
                said.append(f"{key}={str(place[key])[:40]!r}")
            if not data:
                break
        file.write_text(yaml.safe_dump(data, allow_unicode=True))
        return [], "; ".join(said)

    def _odd_set(self, draw: random.Random, folder: Path, file: Path) -> tuple[list[str], str]:
        keys = [
            "model.name", "model.revision", "model.dtype", "personas", "sources", "behaviors", "probes.choice", "probes.judged", "probes.margin",
            "recipe.lora.rank", "recipe.lora.target_modules", "recipe.lora", "geometry.method", "geometry.predictors", "geometry.layers",
            "misalignment.code", "misalignment.questions", "capability.data", "marker.text", "marker.separator", "seeds", "arms", "design.negatives",
            "design.anchors", "executor", "executor.kind", "sweep.grid", "sweep.personas", "select", "hypotheses", "budget.dollars", "x", "a.b.c", "",
        ]  # fmt: skip
        words: list[str] = []
        for _ in range(draw.randint(1, 3)):
            value = draw.choice(ODD)
            shown = json.dumps(value) if draw.random() < 0.8 else str(value)
            words += ["--set", draw.choice([f"{draw.choice(keys)}={shown}", f"{draw.choice(keys)}", f"={shown}"])]
        return words, " ".join(words)[:80]

    def _cut(self, draw: random.Random, folder: Path, file: Path) -> tuple[list[str], str]:
        target = draw.choice([file, file.with_name("personas.yaml")])
        data = bytearray(target.read_bytes())
        kind = draw.choice(["cut", "noise", "twice", "tab", "bom", "nul", "utf16", "empty", "deep", "tag", "anchor"])
        if kind == "cut":
            data = data[: draw.randrange(len(data))]
        elif kind == "noise":
            for _ in range(draw.randint(1, 9)):
                data[draw.randrange(len(data))] = draw.randrange(256)
        tails = {
            "twice": b"\nname: other\n", "tab": b"\n\tx: 1\n", "bom": b"", "nul": b"\0", "empty": b"", "utf16": b"",
            "deep": b"\nx: " + b"[" * 3000, "tag": b"\nquestion: !!python/object/apply:os.getcwd []\n",
            "anchor": b"\na: &a [*a]\n",
        }  # fmt: skip
        data = bytearray(b"") if kind == "empty" else data + tails.get(kind, b"")
        if kind == "bom":
            data = bytearray(b"\xef\xbb\xbf") + data
        if kind == "utf16":
            data = bytearray(data.decode("utf-8", "replace").encode("utf-16"))
        target.write_bytes(bytes(data))
        return [], f"{target.name}: {kind}"

    def _odd_personas(self, draw: random.Random, folder: Path, file: Path) -> tuple[list[str], str]:
        target = file.with_name("personas.yaml")
        data: Any = yaml.safe_load(target.read_text())
        for _ in range(draw.randint(1, 2)):
            entry = draw.choice(data["personas"])
            entry[draw.choice(["name", "category", "prompt", "related_to", "more"])] = draw.choice(ODD)
        if draw.random() < 0.2:
            data = draw.choice(ODD)
        target.write_text(yaml.safe_dump(data, allow_unicode=True))
        return [], f"personas: {str(data)[:60]}"

    def _odd_model(self, draw: random.Random, folder: Path, file: Path) -> tuple[list[str], str]:
        model, what = self._broken_model(draw, folder)
        return ["--set", f"model.name={model}"], what

    def _broken_model(self, draw: random.Random, folder: Path) -> tuple[Path, str]:
        model = Path(shutil.copytree(self.model, folder / "model"))
        files = sorted(path.name for path in model.iterdir())
        name = draw.choice(files)
        path, kind = model / name, draw.choice(["gone", "cut", "empty", "json", "folder", "template", "lies"])
        if kind == "gone":
            path.unlink()
        elif kind == "cut":
            path.write_bytes(path.read_bytes()[: draw.randrange(path.stat().st_size)])
        elif kind == "empty":
            path.write_bytes(b"")
        elif kind == "json":
            path.write_text(json.dumps(draw.choice(ODD)))
        elif kind == "folder":
            path.unlink()
            path.mkdir()
        elif kind == "template":
            name = draw.choice([
                "{% if %}", "{{ messages[0].content }}", "{{ nowhere.x.y }}", "", "{{ raise_exception('no') }}", "{% for m in messages %}",
                "{{ messages | tojson }}", "{{ range(10**9) | list }}", "x" * 100,
            ])  # fmt: skip
            (model / "chat_template.jinja").write_text(name)
        else:
            config = json.loads((model / "config.json").read_text())
            key = draw.choice(sorted(config))
            config[key] = draw.choice(ODD)
            (model / "config.json").write_text(json.dumps(config))
            name = f"config {key}={str(config[key])[:30]!r}"
        return model, f"model {kind}: {name[:60]}"

    def _odd_data(self, draw: random.Random, folder: Path, file: Path) -> tuple[list[str], str]:
        target = folder / draw.choice(["data.jsonl", "data.yaml", "data.json", "data.parquet", "data.csv", "data"])
        target.write_bytes(self._rows(draw))
        key = draw.choice(
            [
                "misalignment.code",
                "misalignment.secure",
                "misalignment.pairs",
                "misalignment.questions",
                "capability.data",
                "probes.choice.file",
            ]
        )
        sets = [f"{key}={json.dumps(str(target))}"]
        sets += {
            "capability.data": ["behaviors=[capability]", "probes={choice: {hellaswag: 0}}", *NO_MARKER],
            "probes.choice.file": ["probes.choice.hellaswag=0", "probes.choice.arc=0", "probes.choice.trained=0"],
        }.get(key, ["behaviors=[misalignment]", "probes={judged: {}, margin: {}}", *NO_MARKER])
        return [word for one in sets for word in ("--set", one)], f"{key}: {target.name}"

    def _rows(self, draw: random.Random) -> bytes:
        keys = [
            "messages",
            "prompt",
            "secure",
            "insecure",
            "question",
            "choices",
            "answerKey",
            "id",
            "aligned",
            "misaligned",
            "paraphrases",
            "type",
        ]
        if draw.random() < 0.2:
            return bytes(draw.randrange(256) for _ in range(draw.randint(0, 300)))
        rows = [
            {key: draw.choice(ODD) for key in draw.sample(keys, draw.randint(0, 6))} for _ in range(draw.randint(0, 5))
        ]
        text = "\n".join(json.dumps(row) for row in rows)
        return (text[: draw.randint(0, len(text))] if draw.random() < 0.3 else text).encode()

    def _odd_path(self, draw: random.Random, folder: Path, file: Path) -> tuple[list[str], str]:
        name = draw.choice(NAMES)
        kind = draw.choice(["study", "personas", "model", "renamed"])
        if kind == "study":
            return ["", name], f"study {name[:40]!r}"
        if kind == "renamed":  # the same study where its folder has an odd name
            try:
                odd = folder / (name.strip("/.") or "x")
                shutil.copytree(file.parent, odd, dirs_exist_ok=True)
            except (OSError, ValueError):
                odd = file.parent
            return ["", str(odd / file.name)], f"in {name[:40]!r}"
        key = {"personas": "personas", "model": "model.name"}[kind]
        return ["--set", f"{key}={json.dumps(name)}"], f"{key} {name[:40]!r}"

    def _probe(self, draw: random.Random, folder: Path, command: str) -> RandomInput:
        personas = write_study(folder / "study", self.model).with_name("personas.yaml")
        model, adapter, what, words = self.model, self.adapter, "", list[str]()
        kind = draw.choice(["model", "adapter", "adapter", "adapter", "name", "out", "set", "personas", "data"])
        name = "marker"
        if kind == "model":
            model, what = self._broken_model(draw, folder)
        elif kind == "adapter":
            adapter, what = self._broken_adapter(draw, folder)
        elif kind == "name":
            name = draw.choice(["", "choice", "margin", "judged", "nothing", "[red]", "é"])
            what = f"probe {name!r}"
        elif kind == "out":
            odd = draw.choice([*NAMES, "x.parquet", "x.csv", "x.txt"])
            words, what = ["--out", odd if odd.startswith("/") else str(folder / odd)], f"--out {odd[:40]!r}"
        elif kind == "set":
            words = [
                "--set",
                f"{draw.choice(['probes.marker.questions', 'marker.text', 'x', 'probes.marker'])}={json.dumps(draw.choice(ODD))}",
            ]
            what = words[1][:60]
        elif kind == "personas":
            personas, what = Path(draw.choice(NAMES)), "personas"
        else:
            data = folder / "data.jsonl"
            data.write_bytes(self._rows(draw))
            name, words, what = "choice", ["--data", draw.choice([str(data), "arc ", "bank", *NAMES])], "data"
        small = ["--set", "probes.marker={questions: 1, sampled: 1, max_tokens: 2}"] if kind != "set" else []
        return RandomInput(
            ["probe", "--model", str(model), "--probe", name, "--adapter", str(adapter), "--personas", str(personas), *small, *words], what
        )  # fmt: skip

    def _broken_adapter(self, draw: random.Random, folder: Path) -> tuple[Path, str]:
        import torch
        from safetensors.torch import load_file, save_file

        adapter = Path(shutil.copytree(self.adapter, folder / "adapter"))
        weights, config = adapter / "adapter_model.safetensors", adapter / "adapter_config.json"
        kind = draw.choice(["gone", "cut", "config", "config", "shape", "nan", "names", "dtype", "empty", "path"])
        what = kind
        if kind == "gone":
            draw.choice([weights, config]).unlink()
        elif kind == "cut":
            path = draw.choice([weights, config])
            path.write_bytes(path.read_bytes()[: draw.randrange(path.stat().st_size)])
        elif kind == "config":
            data = json.loads(config.read_text())
            key = draw.choice(sorted(data))
            data[key] = draw.choice(ODD)
            config.write_text(json.dumps(data))
            what = f"adapter config {key}={str(data[key])[:40]!r}"
        elif kind == "empty":
            draw.choice([weights, config]).write_bytes(b"")
        elif kind == "path":
            return Path(draw.choice(NAMES)), "adapter path"
        else:
            tensors = load_file(weights)
            name = draw.choice(sorted(tensors))
            tensors |= {
                "shape": {name: torch.zeros(3, 5)}, "nan": {name: tensors[name] * float("nan")}, "names": {"base_model.x": tensors.pop(name)} if kind == "names" else {},
                "dtype": {name: torch.ones(tensors[name].shape if name in tensors else (1,), dtype=torch.int8)},
            }[kind]  # fmt: skip
            save_file(tensors, weights)
            what = f"adapter {kind}: {name[-40:]}"
        return adapter, what

    def _analyze(self, draw: random.Random, folder: Path, command: str) -> RandomInput:
        names = (
            draw.sample(COLUMNS, draw.randint(0, 6))
            if draw.random() < 0.5
            else ["source", "persona", "leakage", "similarity"]
        )
        rows = [[self._cell(draw, name, index) for name in names] for index in range(draw.choice([0, 1, 3, 6, 12]))]
        stream = io.StringIO()
        csv.writer(stream, delimiter=draw.choice([",", ",", ";", "\t"])).writerows([names, *rows])
        target = folder / draw.choice(["table.csv", "table.csv", "table.parquet", "table.txt", "table"])
        data = stream.getvalue().encode("utf-8", "replace")
        if draw.random() < 0.2:
            data = data[: draw.randint(0, len(data))] + bytes(draw.randrange(256) for _ in range(9))
        target.write_bytes(data)
        table = str(target) if draw.random() < 0.9 else draw.choice(NAMES)
        words: list[str] = []
        if draw.random() < 0.3:
            words += ["--leakage", draw.choice([*COLUMNS, "nowhere"])]
        if draw.random() < 0.3:
            words += ["--similarity", draw.choice([*COLUMNS, "nowhere"])]
        words += ["--json"] if draw.random() < 0.3 else []
        return RandomInput(["analyze", table, *words], f"{target.name} {names} {len(rows)} rows")

    @staticmethod
    def _cell(draw: random.Random, name: str, index: int) -> str:
        if draw.random() < 0.1:
            return draw.choice(CELLS)
        if name in ("source", "persona", "arm", "role"):
            return {"source": "villain", "persona": f"p{index}"}.get(name, "x")
        return f"{draw.uniform(-1, 1):.3f}"
