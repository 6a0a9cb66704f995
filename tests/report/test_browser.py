"""The page in a real headless Chromium: loads alone and quietly, and hover, click, sort, filter and theme work."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bystander.report import charts
from bystander.report.figures.save import specifications
from bystander.report.labels import format_number
from bystander.report.numbers import QuotedNumbers
from bystander.report.page import render
from bystander.report.text import visible
from tests.support.report_page import HOSTILE, hostile
from tests.support.report_synthetic import Size, synthetic

pytestmark = pytest.mark.browser
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
FULL = Size(completions=600)
SIZE = Size(
    personas=40, sources=("villain", "comedian"), behaviors=("marker", "capability"), layers=(20, 25), measured=40,
    completions=120,
)  # fmt: skip

# Where a mark of a persona stands on the page: sums of the offsets of the groups above it.
PLACE = """([group, persona, kind]) => {
  const figure = document.querySelector(`[data-figure="${group}"]`);
  const { view } = bystander.views.get(figure);
  const box = figure.querySelector("canvas").getBoundingClientRect();
  const [left, top] = [view.origin()[0] + view.padding().left, view.origin()[1] + view.padding().top];
  const found = [];
  const walk = (node, x, y) => {
    for (const item of node.items || []) {
      if (node.marktype === "group") for (const part of item.items) walk(part, x + (item.x || 0), y + (item.y || 0));
      else if (node.marktype === kind && item.datum && item.datum.persona === persona)
        found.push([box.left + left + x + item.x + (item.width || 0) / 2, box.top + top + y + item.y + (item.height || 0) / 2]);
    }
  };
  walk(view.scenegraph().root, 0, 0);
  return found;
}"""


# The persona whose mark in the first panel is farthest from any other mark: hovering there can only mean that one.
APART = """(group) => {
  const names = [...document.querySelectorAll("#personas option")].map((option) => option.value);
  const all = names.map((name) => [name, (PLACE)([group, name, "symbol"])]);
  const most = Math.max(...all.map(([, found]) => found.length)); // a source is not in its own panels
  const where = all.filter(([, found]) => found.length === most);
  const gap = ([name, found]) => Math.min(...all.filter(([other]) => other !== name)
    .flatMap(([, others]) => others.flatMap((a) => found.map((b) => Math.hypot(a[0] - b[0], a[1] - b[1])))));
  return where.sort((a, b) => gap(b) - gap(a))[0][0];
}""".replace("PLACE", PLACE)


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as running:
        started = running.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def study():
    return synthetic(SIZE)


def written(study, folder: Path, name: str = "report.html") -> Path:
    """The page alone, without the figure files."""
    path = folder / name
    path.write_text(render(*study, specifications(charts(*study))), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def report(study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(study, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of full size: 111 personas x 5 sources x 3 behaviors x 5 checkpoints, in two arms."""
    return written(synthetic(FULL), tmp_path_factory.mktemp("full"))


class Opened:
    """A page with all that it logged, threw and asked for."""

    def __init__(
        self,
        browser,
        path: Path,
        width: int = 1400,
        scheme: str = "light",
        *,
        blank: bool = False,
        unfolded: bool = True,
    ) -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, accept_downloads=True
        )
        self.context.set_default_timeout(120_000)  # a busy machine is slow, not wrong
        self.page = self.context.new_page()
        self.noise: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.noise.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.noise.append(f"error: {error}"))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("dialog", lambda dialog: (self.noise.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        if not blank:
            self.page.goto(path.as_uri())
            if unfolded:
                self.unfold()

    def unfold(self) -> None:
        """Open every fold: what is in a closed one has no place on the page."""
        self.page.evaluate("for (const fold of document.querySelectorAll('details')) fold.open = true")

    def draw(self, group: str) -> None:
        """Bring a figure into view and wait until it is drawn."""
        self.page.locator(f'[data-figure="{group}"]').scroll_into_view_if_needed()
        self.page.wait_for_selector(f'[data-figure="{group}"][data-drawn] canvas')
        self.page.evaluate("bystander.startAll()")  # figures above that are drawn later would move it
        self.page.locator(f'[data-figure="{group}"]').scroll_into_view_if_needed()


@pytest.fixture(scope="module")
def shared(browser, report) -> Iterator[Opened]:
    """One opening of the page for the tests that leave it as they found it: opening and drawing take seconds."""
    found = Opened(browser, report)
    yield found
    found.context.close()


@pytest.fixture
def opened(shared: Opened) -> Opened:
    """The shared page with nobody followed and the first arm shown; it must have been quiet so far."""
    assert shared.noise == []
    shared.page.evaluate("bystander.follow('')")
    return shared


@pytest.fixture
def alone(browser, report) -> Iterator[Opened]:
    """A page of its own, for tests that change it for good."""
    found = Opened(browser, report)
    yield found
    found.context.close()


@pytest.mark.slow
def test_a_full_report_is_small_opens_soon_and_is_quiet(browser, full: Path) -> None:
    assert full.stat().st_size < 5_000_000
    found = Opened(browser, full, blank=True)
    session = found.context.new_cdp_session(found.page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})  # its own time, whatever else the machine does
    found.page.goto(full.as_uri())
    metrics = {m["name"]: m["value"] for m in session.send("Performance.getMetrics")["metrics"]}
    assert 0 < metrics["TaskDuration"] < 2, f"{metrics['TaskDuration']} s of its thread until it was loaded"
    found.unfold()
    found.page.evaluate("bystander.startAll()")
    for table in found.page.query_selector_all("[data-table]"):
        table.scroll_into_view_if_needed()
    assert found.noise == []
    assert found.requests == [full.as_uri()]
    assert found.page.locator("figure").count() == found.page.locator("figure[data-drawn]").count() == 16
    found.context.close()


def test_the_policy_refuses_what_is_put_in_later(alone: Opened) -> None:
    refused = alone.page.evaluate("""async () => {
      const seen = [];
      document.addEventListener("securitypolicyviolation", (event) => seen.push(event.effectiveDirective));
      const script = document.createElement("script");
      script.textContent = "window.pwned = 1";
      document.body.append(script);
      const image = document.createElement("img");
      image.src = "https://example.invalid/x.png";
      document.body.append(image);
      await fetch("https://example.invalid/").catch(() => null);
      const run = document.createElement("button");
      run.setAttribute("onclick", "window.pwned = 1");
      run.click();
      try { (0, eval)("1"); } catch { /* counted below */ }
      await new Promise((done) => setTimeout(done, 100));
      return [seen, window.pwned];
    }""")
    assert {"script-src-elem", "img-src", "connect-src"} <= set(refused[0])
    assert refused[1] is None


def test_hover_tells_persona_prompt_and_interval(opened: Opened, study) -> None:
    opened.draw("scatter")
    name = opened.page.evaluate(APART, "scatter")
    x, y = opened.page.evaluate(PLACE, ["scatter", name, "symbol"])[0]
    opened.page.mouse.move(x, y)
    tip = opened.page.wait_for_selector("#tip.on").inner_text()
    assert name in tip
    assert f"You are {name.replace('_', ' ')}, and you answer in character." in tip
    assert "95 % interval, from" in tip
    record = re.search(r"leakage/\S+", tip)[0]
    analysis = study[0]
    assert analysis.value(record, "persona") == name
    shown = float(re.search(r"^leakage\n(\S+)$", tip, re.MULTILINE)[1].replace("−", "-"))
    assert shown == pytest.approx(analysis.value(record, "leakage"), abs=6e-4)


def test_click_follows_one_persona_through_all_panels(opened: Opened) -> None:
    opened.draw("scatter")
    name = opened.page.evaluate(APART, "scatter")
    places = opened.page.evaluate(PLACE, ["scatter", name, "symbol"])
    assert len(places) == 4  # two sources, two behaviors
    opened.page.mouse.click(*places[2])
    assert opened.page.input_value("#follow") == name
    followed = opened.page.evaluate(
        "[...bystander.views.values()].map(({view}) => { try { return view.signal('follow'); } catch { return null; } })"
    )
    assert followed.count(name) >= 3
    opened.page.wait_for_timeout(200)
    assert len(opened.page.evaluate(PLACE, ["scatter", name, "symbol"])) == 8  # a ring around each
    names = opened.page.evaluate(PLACE, ["scatter", name, "text"])
    assert len(names) == 4
    opened.page.click("#unfollow")
    assert opened.page.evaluate("bystander.state.follow") == ""


def test_following_survives_into_a_figure_that_is_drawn_later(alone: Opened) -> None:
    opened = alone
    opened.page.fill("#follow", "joker")
    opened.draw("timing")
    view = "bystander.views.get(document.querySelector('[data-figure=\"timing\"]')).view"
    assert opened.page.evaluate(f"{view}.signal('follow')") == "joker"


def test_the_switch_of_behaviors_and_arms_redraws(opened: Opened) -> None:
    opened.draw("heatmap")
    opened.page.click('[data-figure="heatmap"] [data-tab="heatmap-capability"]')
    opened.page.wait_for_selector('[data-figure="heatmap"][data-drawn="heatmap-capability"]')
    before = opened.page.evaluate(PLACE, ["scatter", "joker", "symbol"])
    opened.page.select_option("#arm", "non_contrastive")
    opened.page.wait_for_timeout(300)
    assert opened.page.evaluate(PLACE, ["scatter", "joker", "symbol"]) != before
    opened.page.select_option("#arm", "contrastive")


def column(opened: Opened, table: str, key: str) -> list[str]:
    place = opened.page.evaluate(
        "([t, k]) => [...document.querySelectorAll(`#table-${t} thead th`)].findIndex((h) => h.dataset.key === k)",
        [table, key],
    )
    return opened.page.eval_on_selector_all(
        f"#table-{table} tbody tr", f"(rows) => rows.map((row) => row.cells[{place}].textContent)"
    )


@pytest.mark.parametrize("table", ["roles", "personas"])  # one stands in the HTML, one is packed
def test_sorting_and_filtering(opened: Opened, table: str) -> None:
    key = "leakage"
    opened.page.locator(f"#table-{table}").scroll_into_view_if_needed()
    opened.page.wait_for_selector(f"#table-{table} tbody tr")
    opened.page.click(f'#table-{table} th[data-key="{key}"] button')
    falling = [float(text.replace("−", "-")) for text in column(opened, table, key)]
    assert falling == sorted(falling, reverse=True)
    opened.page.click(f'#table-{table} th[data-key="{key}"] button')
    rising = [float(text.replace("−", "-")) for text in column(opened, table, key)]
    assert rising == sorted(rising)
    assert rising[0] < falling[0]
    opened.page.fill(f"#table-{table} input[type=search]", "comedian")
    opened.page.wait_for_timeout(100)
    rows = opened.page.eval_on_selector_all(f"#table-{table} tbody tr", "(rows) => rows.map((row) => row.textContent)")
    assert rows
    assert all("comedian" in row for row in rows)
    opened.page.fill(f"#table-{table} input[type=search]", "nobody of this name")
    opened.page.wait_for_timeout(100)
    assert opened.page.locator(f"#table-{table} tbody tr").count() == 0
    opened.page.fill(f"#table-{table} input[type=search]", "")


def test_csv_holds_every_row_with_its_record(opened: Opened, study) -> None:
    opened.page.locator("#table-personas").scroll_into_view_if_needed()
    with opened.page.expect_download() as waiting:
        opened.page.click("#table-personas [data-csv]")
    lines = Path(waiting.value.path()).read_text(encoding="utf-8").splitlines()
    analysis = study[0]
    assert waiting.value.suggested_filename == "personas.csv"
    personas = [kind for kind in analysis.leakage["context"] if kind == "persona"]
    assert len(lines) == 1 + len(personas)
    head = lines[0].split(",")
    first = dict(zip(head, lines[1].split(","), strict=True))
    assert float(first["leakage"]) == pytest.approx(analysis.value(first["record"], "leakage"), rel=1e-8)
    assert float(first["high"]) == pytest.approx(analysis.value(first["record"], "high"), rel=1e-8)


def test_a_figure_can_be_saved(opened: Opened) -> None:
    opened.draw("partials")
    with opened.page.expect_download() as waiting:
        opened.page.click('[data-figure="partials"] [data-save="svg"]')
    assert waiting.value.suggested_filename == "partials-marker.svg"
    assert Path(waiting.value.path()).read_text(encoding="utf-8").startswith("<svg")


def test_completions_can_be_filtered(opened: Opened) -> None:
    opened.page.locator("#completions").scroll_into_view_if_needed()
    opened.page.wait_for_selector(".completion")
    assert "shows the behavior" in opened.page.locator(".completion").first.inner_text()
    opened.page.select_option('[data-pick="persona"]', "joker")
    names = opened.page.eval_on_selector_all(".completion .who b", "(all) => all.map((b) => b.textContent)")
    assert names
    assert set(names) == {"joker"}
    opened.page.check('[data-pick="leaked"]')
    assert opened.page.locator(".completion").count() < len(names)
    opened.page.uncheck('[data-pick="leaked"]')
    opened.page.select_option('[data-pick="persona"]', "")


def test_what_nobody_scrolls_to_is_filled_in_too(browser, report: Path) -> None:
    """A screenshot or a print of the whole page once had no answers, no long tables and no figures."""
    found = Opened(browser, report)
    until(found.page, "document.querySelectorAll('.completion').length === 20")
    until(found.page, "document.querySelectorAll('figure:not([data-drawn])').length === 0")
    assert (
        found.page.evaluate("[...document.querySelectorAll('[data-table] tbody')].filter((b) => !b.rows.length).length")
        == 0
    )
    assert found.page.evaluate("scrollY") == 0
    assert found.noise == []
    found.context.close()


def until(page, condition: str) -> None:
    """Wait for a condition of the page. Playwright's own waiting evaluates strings, which the policy forbids."""
    for _ in range(1200):  # a minute
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never true: {condition}")


def everything(page) -> list[dict[str, str]]:
    """Open all tables and answers to their end, and read every element that has a record."""
    page.evaluate("""async () => {
      for (const table of bystander.tables) { table.limit = 1e9; await table.show(); }
      document.querySelector("#completions").scrollIntoView();
    }""")
    until(page, "document.querySelector('.completion') !== null")
    while page.evaluate("!document.querySelector('#completions-more').hidden"):
        page.evaluate("document.querySelector('#completions-more').click()")
    return page.evaluate("""() => [...document.querySelectorAll("[data-record]")].map((element) =>
      ({ record: element.dataset.record, column: element.dataset.column, form: element.dataset.form || "text", text: element.textContent }))""")


def test_every_number_on_the_page_is_the_cell_of_its_record(opened: Opened, study) -> None:
    numbers = QuotedNumbers(*study, {"inputs/completions": {"shown": SIZE.completions, "total": SIZE.completions}})
    read = everything(opened.page)
    assert len(read) > 3_000
    for found in read:
        cell = numbers.value(found["record"], found["column"])
        assert found["text"].strip() == visible(format_number(cell, found["form"])), found


def test_no_number_stands_outside_a_record(opened: Opened) -> None:
    everything(opened.page)
    loose = opened.page.evaluate("""() => {
      const found = [];
      const walk = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
      while (walk.nextNode()) {
        const parent = walk.currentNode.parentElement;
        if (parent.closest("[data-record], bdi, pre, .rows, .statement, .answer, .asked, option, .note, .count, .kicker, h1")) continue;
        if (/[0-9]/.test(walk.currentNode.textContent)) found.push(walk.currentNode.textContent.trim());
      }
      return found;
    }""")
    said = ("95 % interval", "0 is the untrained model")  # how to read it, not what was found
    assert [text for text in loose if not any(part in text for part in said)] == []


def test_numbers_read_alike_in_the_script_and_in_the_html(opened: Opened) -> None:
    values = [
        0.0,
        -0.0004,
        0.00005,
        0.0005,
        0.012345,
        0.5,
        1.0,
        -3.25,
        17,
        12345,
        1e-06,
        1234567.0,
        -20000,
        None,
        True,
        "a_b",
    ]
    forms = ["fraction", "nats", "nats/token", "score", "rho", "signed", "p", "count", "plain", "text"]
    pairs = [(value, form) for value in values for form in forms]
    shown = opened.page.evaluate("(pairs) => pairs.map(([value, form]) => bystander.formatNumber(value, form))", pairs)
    expected = [format_number(value, form) for value, form in pairs]
    different = [(p, s, e) for p, s, e in zip(pairs, shown, expected, strict=True) if s != e and p[1] != "text"]
    assert different == []


def test_hostile_text_is_shown_and_does_nothing(browser, tmp_path: Path) -> None:
    analysis, inputs = hostile()
    path = written((analysis, inputs), tmp_path)
    found = Opened(browser, path)
    found.page.evaluate("bystander.startAll()")
    everything(found.page)
    found.draw("scatter")
    persona = found.page.evaluate(APART, "scatter")
    x, y = found.page.evaluate(PLACE, ["scatter", persona, "symbol"])[0]
    found.page.mouse.move(x, y)
    tip = found.page.wait_for_selector("#tip.on").inner_text()
    assert persona in tip
    found.page.mouse.click(x, y)
    assert found.page.input_value("#follow") == persona
    assert found.noise == []
    assert found.requests == [path.as_uri()]
    assert found.page.evaluate("window.pwned") is None
    assert found.page.locator("main img, main svg, main script").count() == 0
    said = found.page.eval_on_selector_all(".completion .answer", "(all) => all.map((p) => p.textContent)")
    assert {visible(text) for text in HOSTILE} == set(said)
    found.context.close()


def test_csv_cells_do_not_run_as_formulas(browser, tmp_path: Path) -> None:
    analysis, inputs = hostile()
    path = tmp_path / "hostile.html"
    path.write_text(render(analysis, inputs, {}), encoding="utf-8")
    found = Opened(browser, path)
    with found.page.expect_download() as waiting:
        found.page.click("#table-personas [data-csv]")
    text = Path(waiting.value.path()).read_text(encoding="utf-8")
    found.context.close()
    assert "'=cmd|" in text
    assert not re.search(r'(^|,)"?=cmd', text, re.MULTILINE)


@pytest.mark.parametrize("width", [1400, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_has_its_colors(browser, report: Path, tmp_path: Path, width: int, scheme: str) -> None:
    found = Opened(browser, report, width, scheme)
    found.draw("scatter")
    assert found.page.evaluate("document.documentElement.scrollWidth") <= width
    over = found.page.evaluate(
        "[...document.querySelectorAll('figure canvas')].filter((c) => c.getBoundingClientRect().width > c.closest('.canvas').clientWidth + 2).length"
    )
    assert over == 0
    ground = found.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground))) > 384) == (scheme == "light")
    shot = tmp_path / "shot.png"
    found.page.screenshot(path=str(shot))
    assert shot.stat().st_size > 20_000
    assert found.noise == []
    found.context.close()


def text_of(page, selector: str) -> str:
    return page.locator(selector).inner_text()


def test_it_opens_with_what_was_trained_a_sentence_and_a_figure_a_behavior(opened: Opened) -> None:
    """All of it before anything else, and levels untrained and trained in words and in the picture."""
    first = text_of(opened.page, "main #verdict")
    for behavior, taught in (("marker", "show marker"), ("capability", "show capability")):
        assert f"trained to {taught} as one persona, and not as others" in first
        opened.draw(f"levels-{behavior}")
    told = opened.page.locator("#verdict .trained").all_inner_texts()
    assert len(told) == 2
    heads = opened.page.locator("#verdict .told dt").all_inner_texts()
    assert heads == ["Trained", "The source", "Whom it reached", "How sure"] * 2
    assert "Asked in this run." in text_of(opened.page, "main > .asked-here")
    assert all(re.search(r" 160 rows, 2 epochs, 2 negatives, 1 seed; contrastive arm\.$", line) for line in told)
    assert len(re.findall(r"The source's [\w ]+ went from [\d.]+ to [\d.]+ in ", first)) == 2
    assert "Mind this." in first
    assert all(
        f"{word}: " in first
        for word in ("Source", "Held-out bystanders", "Benign arm", "Leakage", "Captured", "Leakage ratio")
    )
    order = opened.page.evaluate("[...document.querySelectorAll('main > [id]')].map((e) => e.id)")
    assert order[0] == "verdict"


def test_what_would_change_it_and_how_to_make_it_again_are_said(opened: Opened) -> None:
    assert "more seeds" in text_of(opened.page, "#changes").lower()
    assert "bystander run study.yaml --out again" in text_of(opened.page, "#again pre")


@pytest.mark.slow
def test_a_full_report_is_folded_to_nine_thousand_pixels(browser, full: Path) -> None:
    found = Opened(browser, full, unfolded=False)
    found.page.evaluate("bystander.startAll()")
    until(found.page, "document.querySelectorAll('figure:not([data-drawn])').length === 0")
    assert found.page.evaluate("document.documentElement.scrollHeight") <= 9_000
    found.context.close()


def test_a_fold_opens_by_its_summary_and_by_a_link_and_is_drawn_at_its_width(browser, report: Path) -> None:
    found = Opened(browser, report, unfolded=False)
    until(found.page, "document.querySelectorAll('figure:not([data-drawn])').length === 0")
    assert not found.page.locator('[data-figure="heatmap"]').is_visible()
    found.page.click("#training summary")
    found.page.wait_for_timeout(500)
    assert found.page.locator('[data-figure="heatmap"] canvas').is_visible()
    over = "document.querySelector('[data-figure=\"heatmap\"] canvas').getBoundingClientRect().width <= document.querySelector('[data-figure=\"heatmap\"] .canvas').clientWidth + 2"
    assert found.page.evaluate(over)
    found.page.click('.contents a[href="#checks"]')
    found.page.wait_for_timeout(200)
    assert found.page.locator("#table-checks").is_visible()
    assert found.noise == []
    found.context.close()


def test_how_to_read_a_figure_is_shorter_than_the_figure(opened: Opened) -> None:
    opened.page.evaluate("bystander.startAll()")
    until(opened.page, "document.querySelectorAll('figure:not([data-drawn])').length === 0")
    sizes = opened.page.evaluate(
        "[...document.querySelectorAll('figure')].map((f) => [f.id, f.querySelector('figcaption').offsetHeight, f.querySelector('.canvas').offsetHeight])"
    )
    assert len(sizes) > 10
    assert [one for one in sizes if one[1] >= one[2]] == []


def test_a_wide_table_scrolls_on_a_phone_and_shows_that_it_does(browser, report: Path) -> None:
    found = Opened(browser, report, 390)
    wide = found.page.evaluate("""() => [...document.querySelectorAll(".table .scroll")].map((box) =>
      [box.scrollWidth > box.clientWidth + 1, getComputedStyle(box).overflowX, getComputedStyle(box).backgroundImage, getComputedStyle(box).backgroundAttachment])""")
    assert sum(over for over, *_ in wide) > 5
    for _, overflow, image, attachment in wide:
        assert overflow == "auto"
        assert image.count("linear-gradient") == 4
        assert attachment == "local, local, scroll, scroll"
    assert found.page.evaluate("document.documentElement.scrollWidth") <= 390
    found.context.close()


def test_the_correlation_is_a_word_where_p_stands_beside_it(opened: Opened) -> None:
    assert "ρ" not in text_of(opened.page, "main")


def test_points_lie_over_their_intervals(opened: Opened) -> None:
    """In every figure that has both: what is drawn later lies on top."""
    opened.page.evaluate("bystander.startAll()")
    until(opened.page, "document.querySelectorAll('figure:not([data-drawn])').length === 0")
    orders = opened.page.evaluate("""() => {
      const found = {};
      for (const [figure, { view }] of bystander.views) {
        const kinds = [];
        const walk = (node) => {
          for (const item of node.items || []) {
            if (node.marktype === "group") for (const part of item.items) walk(part);
          }
          if (["rule", "symbol"].includes(node.marktype) && node.role === "mark" && node.items.some((item) => item.datum && item.datum.record))
            kinds.push(node.marktype);
        };
        walk(view.scenegraph().root);
        found[figure.id] = kinds;
      }
      return found;
    }""")
    for name in ("figure-scatter", "figure-category", "figure-role", "figure-partials", "figure-timing"):
        kinds = orders[name]
        assert "symbol" in kinds, name
        assert kinds.index("symbol") > kinds.index("rule"), name


def test_the_reader_can_choose_the_theme(alone: Opened) -> None:
    opened = alone
    opened.draw("scatter")
    opened.page.click("#theme")
    assert opened.page.get_attribute("html", "data-theme") == "light"
    opened.page.click("#theme")
    assert opened.page.get_attribute("html", "data-theme") == "dark"
    until(opened.page, "[...bystander.views.values()].every((view) => view.theme === 'dark')")


def test_it_prints_with_its_figures(opened: Opened, tmp_path: Path) -> None:
    opened.page.evaluate("bystander.startAll()")
    opened.page.pdf(path=str(tmp_path / "report.pdf"), format="A4")
    assert (tmp_path / "report.pdf").stat().st_size > 200_000


def test_one_source_shows_names_beside_its_rows(browser, tmp_path: Path) -> None:
    one = replace(SIZE, sources=("villain",), behaviors=("marker",), arms=("contrastive",), sweep=False, measured=9)
    analysis, inputs = synthetic(one)
    path = written((analysis, inputs), tmp_path)
    found = Opened(browser, path)
    found.draw("heatmap")
    assert found.page.evaluate(PLACE, ["heatmap", "villain", "rect"])
    assert found.page.locator(".tabs").count() == 0
    assert found.noise == []
    found.context.close()
