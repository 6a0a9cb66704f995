"""The live page of a run in a real browser, while the run runs; and who may read it."""

import json
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bystander.core.files import write_json
from bystander.engine.run import run_study
from bystander.results.live import MOST_POINTS, Live
from bystander.study.config.study import load
from bystander.study.store.run_dir import RunDir
from tests.support.command import call
from tests.support.study_tiny import make_model, write_study

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
MAIN = "from bystander.cli.main import main; main()"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("live")
    return write_study(folder / "study", make_model(folder / "model", ends=True), ends=True)


@pytest.fixture(scope="module")
def finished(study: Path) -> Path:
    run_study(load(str(study)), study.parent / "finished")
    return study.parent / "finished"


@pytest.fixture
def page():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 900, "height": 1200})
        page.faults = []
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.on(
            "console",
            lambda said: page.faults.append(said.text) if said.type == "error" and "503" not in said.text else None,
        )
        yield page
        browser.close()


def until(page, found, seconds: float = 30) -> None:
    """Wait in the page's own time; its policy forbids what the browser's driver would evaluate in it."""
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline, page.locator("body").inner_text()[:2000]
        page.wait_for_timeout(100)


@pytest.fixture
def serving():
    """Starts `bystander status RUN --serve`; the address of its page."""
    pytest.importorskip("starlette", reason="the page is an extra: pip install 'bystander[serve]'")
    processes = []

    def start(run: Path) -> str:
        command = [sys.executable, "-u", "-c", MAIN, "status", str(run), "--serve", "--port", "0"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        processes.append(process)
        line = process.stdout.readline()
        assert "http://127.0.0.1:" in line, line + process.stdout.read()
        return line[line.index("http://") :].split()[0]

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.browser
def test_the_page_follows_a_run_to_its_end_without_being_loaded_again(study: Path, tmp_path: Path, page, serving):
    run = tmp_path / "run"
    background = subprocess.Popen(
        [sys.executable, "-c", MAIN, "run", str(study), "--out", str(run)], stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not (run / "plan.json").is_file():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    page.goto(serving(run))
    page.evaluate("window.stillHere = true")
    until(page, lambda: page.title() == "tiny: running", 60)
    until(page, lambda: page.title() == "tiny: done", 240)
    assert background.wait(60) == 0
    until(page, lambda: page.locator("#losses svg path").count() == 4)
    assert page.evaluate("window.stillHere")
    assert page.locator("#phases .bar").count() == 4
    assert page.locator("#scatter figure").count() == 3
    assert page.locator("#scatter figure").last.locator("circle").count() == 8
    assert page.locator("#scatter circle.source").count() >= 3
    assert "device hours" in page.locator("#spend").inner_text()
    until(page, lambda: "the report was written" in page.locator("#events").inner_text())  # seen at its next look
    page.screenshot(path=tmp_path / "live.png", full_page=True)
    assert page.faults == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.browser
def test_what_a_run_says_is_never_markup(finished: Path, tmp_path: Path, page, serving):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    plan = json.loads((run / "plan.json").read_text())
    plan["study"] = "<img src=x onerror=window.pwned=1>"
    write_json(run / "plan.json", plan)
    with (run / "events.jsonl").open("a") as events:
        bad = {
            "time": "2026-01-01T00:00:00+00:00",
            "plan": plan["hash"][:16],
            "event": "cell failed",
            "next": "given up",
        }
        events.write(
            json.dumps(bad | {"key": "x", "cell": "<script>window.pwned=1</script>", "reason": "<b>no</b>"}) + "\n"
        )
    page.goto(serving(run))
    until(page, lambda: "<img" in page.locator("#study").inner_text())
    assert page.evaluate("window.pwned") is None
    assert page.locator("#study img, #events script, #events b").count() == 0


def test_only_requests_that_name_this_machine_are_answered(finished: Path):
    pytest.importorskip("starlette", reason="the page is an extra: pip install 'bystander[serve]'")
    from starlette.testclient import TestClient

    from bystander.cli.serve import live_app

    client = TestClient(live_app(finished), base_url="http://127.0.0.1")
    answer = client.get("/data")
    assert answer.status_code == 200
    assert answer.json()["state"] == "done"
    assert client.get("/data", headers={"host": "evil.example"}).status_code == 400
    assert client.post("/data").status_code == 405
    assert client.get("/../study.yaml").status_code == 404
    assert "default-src 'self'" in client.get("/").headers["content-security-policy"]


def test_a_run_that_is_damaged_while_it_is_looked_at_is_told_and_looked_at_again(finished: Path, tmp_path: Path):
    pytest.importorskip("starlette", reason="the page is an extra: pip install 'bystander[serve]'")
    from starlette.testclient import TestClient

    from bystander.cli.serve import live_app

    shutil.copytree(finished, tmp_path / "run")
    client = TestClient(live_app(tmp_path / "run"), base_url="http://127.0.0.1")
    (tmp_path / "run" / "plan.json").rename(tmp_path / "plan.json")
    answer = client.get("/data")
    assert (answer.status_code, "no plan.json" in answer.json()["error"]) == (503, True)
    (tmp_path / "plan.json").rename(tmp_path / "run" / "plan.json")
    assert client.get("/data").status_code == 200


@pytest.mark.parametrize("source", ["villain", "comedian"])
def test_the_scatter_is_that_of_the_tables(finished: Path, source: str):
    """Of the picked configuration, that is: on the questions that it was not picked on."""
    from bystander.results.results import Results

    drawn = {one["name"]: one for one in Live(RunDir(finished)).scatter()}
    one = drawn[f"marker, {source}, contrastive, lr=0.0004,epochs=2, seed 0"]
    probe, dataset, name = one["outcome"].split("/")
    leakage = Results.open(finished).leakage()
    rows = leakage.filter(
        (leakage["source"] == source)
        & (leakage["metric"] == name)
        & (leakage["dataset"] == dataset)
        & (leakage["probe"] == probe)
        & (leakage["context"] == "persona")
    )
    told = dict(zip(rows["persona"], rows["leakage"], strict=True))
    assert name == "own_marker_probability"
    assert set(rows["n_items"]) == {2}
    assert {point["persona"] for point in one["points"]} == set(told)
    assert len(told) == 8
    for point in one["points"]:
        assert point["change"] == pytest.approx(told[point["persona"]], rel=1e-9, abs=0), point["persona"]


def test_long_curves_are_thinned_and_keep_their_end(finished: Path, monkeypatch: pytest.MonkeyPatch):
    rows = [{"step": step, "loss": 1.0 / step} for step in range(1, 5001)]
    monkeypatch.setattr("bystander.results.live.steps_of", lambda _: rows)
    points = Live(RunDir(finished)).losses()[0]["points"]
    assert len(points) <= MOST_POINTS + 1
    assert points[-1] == [5000, 1.0 / 5000]


def test_what_cannot_be_served_is_a_fault(finished: Path, tmp_path: Path, capsys):
    pytest.importorskip("starlette", reason="the page is an extra: pip install 'bystander[serve]'")
    assert call(capsys, "status", tmp_path, "--serve")[0] == 2
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, _, err = call(capsys, "status", finished, "--serve", "--port", taken.getsockname()[1])
    assert code == 2
    assert "give another --port" in err
