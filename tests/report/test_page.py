"""The page without a browser: every number resolves, hostile text stays text, files are whole, sizes are kept."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from bystander.analysis.results import Analysis
from bystander.core.errors import StoreError
from bystander.report import ReportInput, charts, sections, write_report
from bystander.report.figures.save import DOTS, INCH, WIDEST, save_figures, specifications, without_hover
from bystander.report.headline import headline_outcomes
from bystander.report.labels import format_number
from bystander.report.numbers import QuotedNumbers
from bystander.report.page import render
from bystander.report.text import pack, visible
from tests.support.report_page import SMALL, Elements, hostile
from tests.support.report_synthetic import synthetic, unpack


@pytest.fixture(scope="module")
def small() -> tuple[Analysis, ReportInput, dict[str, dict[str, object]], str]:
    analysis, inputs = synthetic(SMALL)
    specs = specifications(charts(analysis, inputs))
    return analysis, inputs, specs, render(analysis, inputs, specs)


def test_every_number_of_the_html_is_the_cell_of_its_record(small) -> None:
    analysis, inputs, _, text = small
    numbers = QuotedNumbers(analysis, inputs)
    quoted = Elements(text).quoted
    assert len(quoted) > 300
    for attributes, shown in quoted:
        cell = numbers.value(attributes["data-record"], attributes["data-column"])
        assert shown.strip() == visible(format_number(cell, attributes.get("data-form") or "text")), attributes


def test_a_changed_record_changes_the_page(small) -> None:
    analysis, inputs, specs, text = small
    rows = analysis.leakage_ratio.with_columns(pl.lit(0.123456).alias("bystander_leakage"))
    changed = render(replace(analysis, leakage_ratio=rows), inputs, specs)
    assert ">0.123</data>" in changed
    assert ">0.123</data>" not in text


@pytest.mark.parametrize(
    "kind", ["scatter", "heatmap-marker", "category-marker", "predictors-marker", "quintiles-marker"]
)
def test_every_row_of_a_figure_quotes_its_record(small, kind: str) -> None:
    analysis, _, specs, _ = small
    rows = [row for data in specs[kind]["datasets"].values() for row in data]
    assert rows
    for row in rows:
        for column in ("leakage", "low", "high", "rho", "before", "after", "value", "n_items"):
            if row.get(column) is not None:
                assert row[column] == analysis.value(row["record"], column), (column, row)


def test_partials_in_the_figure_are_those_of_the_gradient_record(small) -> None:
    analysis, _, specs, _ = small
    rows = [row for data in specs["partials-marker"]["datasets"].values() for row in data]
    by_label = {row["held"]: row for row in rows}
    record = by_label["prompt length"]["record"]
    assert by_label["prompt length"]["rho"] == analysis.value(record, "partial_prompt_length")
    assert by_label["nothing (raw)"]["rho"] == analysis.value(record, "rho")


def test_the_source_is_in_no_scatter(small) -> None:
    _, _, specs, _ = small
    people = [r for data in specs["scatter"]["datasets"].values() for r in data if r["kind"] == "persona"]
    assert {r["role"] for r in people} == {"held-out", "negative"}
    assert "villain" not in {r["persona"] for r in people}


def test_the_page_can_load_nothing(small) -> None:
    *_, text = small
    tags = Elements(text).tags
    policy = next(a["content"] for t, a in tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert "http" not in policy
    for tag, attributes in tags:
        assert tag not in {"link", "iframe", "object", "embed", "img", "base", "form"}, tag
        assert not any(name.startswith("on") for name in attributes), attributes
        assert "src" not in attributes
        assert "style" not in attributes  # the policy would refuse it
        href = attributes.get("href")
        assert href is None or href.startswith("#")


def test_hostile_text_adds_no_element_and_hides_nothing() -> None:
    analysis, inputs = hostile()
    text = render(analysis, inputs, specifications(charts(analysis, inputs)))
    tags = Elements(text).tags
    executable = [a for t, a in tags if t == "script" and a.get("type") is None]
    assert len(executable) == 2  # Vega's and the page's
    assert not [a for _, a in tags if any(name.startswith("on") for name in a)]
    assert not [t for t, _ in tags if t in {"img", "svg"}]
    body = re.sub(r"<(script|style)[^>]*>.*?</\1>", "", text, flags=re.DOTALL)
    assert "&lt;script&gt;window.pwned=1&lt;/script&gt;" in body
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u200b\u202a-\u202e\u2028\u2029]", body)
    assert "␛[31mred" in body
    assert "⟨U+202E⟩gnp.exe" in body


def test_packed_data_cannot_end_its_element() -> None:
    packed = pack({"text": "</script><!--\u2028"})
    assert re.fullmatch(r"[A-Za-z0-9+/=]+", packed)
    assert unpack(packed) == {"text": "</script><!--\u2028"}
    assert pack({"a": 1}) == pack({"a": 1})


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        (None, "rho", "–"), (0.6549, "rho", "0.65"), (-0.0001, "fraction", "0.000"), (-0.5, "nats", "−0.50"),
        (0.00001, "p", "< 0.0001"), (0.0123, "p", "0.012"), (0.0034, "p", "0.0034"), (13320, "count", "13\u202f320"),
        (True, "plain", "yes"), (1e-06, "plain", "1e−6"), (3.25, "score", "3.3"), (0.0, "signed", "0.000"), (-0.0, "plain", "0"), (0.25, "signed", "+0.250"), (120000.0, "plain", "120\u202f000"), (2, "plain", "2"),
        ("x", "rho", "x"), (56.96, "score", "57.0"),
    ],
)  # fmt: skip
def test_numbers_as_text(value, form, text) -> None:
    assert format_number(value, form) == text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("at chance on choice/arc/accuracy: larger", "at chance on accuracy, arc: larger"),
        ("villain, software_engineer", "villain, software engineer"),
        ("contrastive, non_contrastive", "contrastive, non-contrastive"),
        (
            "recipe.max_steps, max_steps=3, own_rows.jsonl, `to_do`",
            "recipe.max_steps, max_steps=3, own_rows.jsonl, `to_do`",
        ),
        ("my/own/thing", "my/own/thing"),
    ],
)
def test_identifiers_in_words(text: str, words: str) -> None:
    assert format_number(text, "words") == words
    assert format_number(text, "text") == text


def test_the_preregistered_outcome_leads_over_the_primary_one() -> None:
    analysis, _ = synthetic(replace(SMALL, behaviors=("capability",)))
    other = analysis.leakage.with_columns(pl.lit("margin").alias("metric"))
    both = pl.concat([analysis.leakage, other])
    tests = analysis.similarity_correlation.with_columns(pl.lit("margin").alias("metric"))
    assert headline_outcomes(replace(analysis, leakage=both), {})[0].metric == "accuracy"
    assert headline_outcomes(replace(analysis, leakage=both, similarity_correlation=tests), {})[0].metric == "margin"


def test_a_table_of_somebody_else_is_reported_without_inputs(tmp_path: Path) -> None:
    analysis, _ = synthetic(SMALL)
    bare = Analysis(
        leakage=analysis.leakage, similarity_correlation=analysis.similarity_correlation, evolution=analysis.evolution
    )
    text = render(bare, ReportInput(audited=False), specifications(charts(bare, ReportInput())))
    assert "No audit was run" in text
    assert 'data-figure="scatter"' in text


def test_an_analysis_without_rows_makes_a_page_that_says_so() -> None:
    text = render(Analysis(), ReportInput(study="nothing"), specifications(charts(Analysis())))
    assert "There is nothing to conclude yet" in text


def test_what_did_not_hold_is_not_said_to_hold() -> None:
    analysis, inputs = synthetic(SMALL)
    weak = replace(
        analysis,
        similarity_correlation=analysis.similarity_correlation.with_columns(pl.lit(0.4).alias("p")),
        leakage_ratio=analysis.leakage_ratio.with_columns(pl.lit(0.3).alias("source_p")),
    )
    text = render(weak, inputs, {})
    assert "Leakage does not measurably follow similarity" in text
    assert "Training did not clearly take hold" in text
    wide = replace(
        analysis,
        similarity_correlation=analysis.similarity_correlation.with_columns(
            pl.lit(-0.2).alias("low"), pl.lit(0.04).alias("p")
        ),
    )
    assert "Leakage does not measurably follow similarity" in render(wide, inputs, {})
    against = replace(
        analysis,
        similarity_correlation=analysis.similarity_correlation.with_columns(
            -pl.col("rho"), -pl.col("low"), -pl.col("high"), pl.lit(0.001).alias("p")
        ),
    )
    assert "Leakage runs against similarity" in render(against, inputs, {})


def test_completions_beyond_the_budget_are_counted_and_every_persona_keeps_one(monkeypatch) -> None:
    monkeypatch.setattr("bystander.report.completions.MOST", 12_000)
    analysis, inputs = synthetic(replace(SMALL, personas=12, completions=240))
    text = render(analysis, inputs, {})
    shown = unpack(re.search(r'data-name="completions">([^<]*)<', text)[1])
    assert 12 <= len(shown) < 240
    assert {entry["persona"] for entry in shown} == set(analysis.leakage.filter(context="persona")["persona"])
    assert [entry["leaked"] for entry in shown] == sorted((e["leaked"] for e in shown), reverse=True)
    assert f'data-record="inputs/completions" data-column="shown" data-form="count">{len(shown)}<' in text


def test_each_persona_is_read_once_before_any_is_read_twice_and_the_trained_model_first() -> None:
    analysis, inputs = synthetic(SMALL)
    one = next(read for read in inputs.completions if read.leaked)
    answers = [
        replace(one, completion=replace(one.completion, persona=name, id=f"{name}/q"), seed=seed, checkpoint=checkpoint)
        for name in ("villain", "comedian") for seed in (0, 1) for checkpoint in (0.5, 1.0)
    ]  # fmt: skip
    text = render(analysis, replace(inputs, completions=answers), {})
    shown = unpack(re.search(r'data-name="completions">([^<]*)<', text)[1])
    assert [{shown[i]["persona"], shown[i + 1]["persona"]} for i in range(0, 8, 2)] == [{"villain", "comedian"}] * 4
    assert [entry["checkpoint"] for entry in shown] == [1.0] * 4 + [0.5] * 4
    assert {entry["seed"] for entry in shown} == {0, 1}
    assert len({entry["record"] for entry in shown}) == len(answers)


def test_the_verdict_says_of_which_arm_it_is_and_what_the_other_did() -> None:
    analysis, inputs = synthetic(
        replace(SMALL, sources=("villain", "comedian"), arms=("contrastive", "non_contrastive"))
    )
    text = render(analysis, inputs, {})
    said = re.search(r"All this is of the contrastive arm; in the non-contrastive arm (.*?)</p>", text)[1]
    quoted = {a["data-record"]: shown for a, shown in Elements(said).quoted if a["data-column"] == "bystander_leakage"}
    assert set(quoted) == {
        f"leakage_ratio/{s}/marker/non_contrastive/marker_probability" for s in ("villain", "comedian")
    }
    assert "pooled/" in said
    assert "All this is of" not in render(*synthetic(SMALL), {})


def test_a_hypothesis_of_one_source_is_told_as_such() -> None:
    analysis, inputs = synthetic(SMALL)
    verdict = replace(analysis.verdicts[0], hypothesis="A/software_engineer")
    text = render(replace(analysis, verdicts=(*analysis.verdicts, verdict)), inputs, {})
    assert "<b>A, source software engineer</b>" in text
    assert "The same for the source software engineer by itself." in text


def test_a_column_that_is_the_same_or_empty_everywhere_is_left_out() -> None:
    analysis, _ = synthetic(SMALL)
    first = analysis.checks.head(1).with_columns(
        pl.lit("").alias("behavior"), pl.lit("").alias("source"), pl.lit("checks/untrained").alias("record")
    )
    made = sections.checks(replace(analysis, checks=pl.concat([first, analysis.checks])))
    keys = [column.key for column in made.columns]
    assert "behavior" not in keys
    assert "config" not in keys
    assert "mode" in keys
    assert made.rows[0]["source"] == "none: untrained model"


def test_intervals_do_not_stretch_an_axis_until_the_values_are_one_line() -> None:
    analysis, inputs = synthetic(replace(SMALL, sources=("villain", "comedian")))
    wide = replace(
        analysis,
        quintiles=analysis.quintiles.with_columns(pl.lit(-9.0).alias("low"), pl.lit(9.0).alias("high")),
        leakage=analysis.leakage.with_columns(pl.lit(-9.0).alias("low"), pl.lit(9.0).alias("high")),
    )
    specs = specifications(charts(wide, inputs))
    for name in ("scatter", "quintiles-marker"):
        domains = [
            float(d)
            for pair in re.findall(r'"domain": \[(-?[\d.]+), (-?[\d.]+)\]', json.dumps(specs[name]))
            for d in pair
        ]
        assert domains
        assert all(-2 < end < 2 for end in domains), name


def test_files_are_written_whole_in_every_format(tmp_path: Path) -> None:
    whole, inputs = synthetic(replace(SMALL, personas=16, completions=4))
    analysis = Analysis(leakage=whole.leakage, roles=whole.roles, settings=whole.settings)
    inputs = replace(inputs, curves=())
    path = write_report(analysis, inputs, tmp_path / "run", style="paper")
    assert path == tmp_path / "run" / "report.html"
    figures = tmp_path / "run" / "figures"
    kinds = {name: {p.suffix for p in figures.glob(f"{name}.*")} for name in charts(analysis, inputs)}
    assert kinds.keys() == {"levels-marker", "contexts-marker", "scatter", "role-marker"}
    assert all(suffixes == {".svg", ".png", ".pdf"} for suffixes in kinds.values())
    assert (figures / "scatter.pdf").read_bytes().startswith(b"%PDF")
    assert (figures / "scatter.png").read_bytes().startswith(b"\x89PNG")
    assert not [p for p in path.parent.rglob("*") if p.name.startswith(".")]


def test_files_leave_out_what_only_a_mouse_finds_and_keep_to_a_page(small) -> None:
    analysis, inputs, _, _ = small
    specs = specifications(charts(analysis, inputs))
    hidden = [name for name, spec in specs.items() if without_hover(spec) != spec]
    assert hidden == ["losses"]
    assert [layer["mark"]["type"] for layer in without_hover(specs["losses"])["layer"]] == ["line"]
    assert without_hover({"spec": specs["losses"]})["spec"] == without_hover(specs["losses"])


@pytest.mark.parametrize(("width", "pixels"), [(480, 480 / INCH * DOTS), (3110, WIDEST * DOTS)])
def test_a_png_has_its_dots_per_inch_and_is_no_wider_than_a_page(tmp_path: Path, width: int, pixels: float) -> None:
    plot = {"data": {"values": [{"a": 1}]}, "mark": "point", "encoding": {"x": {"field": "a"}}, "width": width}
    spec = {**plot, "padding": 0, "autosize": {"type": "fit", "contains": "padding"}}
    save_figures({"one": spec}, tmp_path, "screen")
    found = int.from_bytes((tmp_path / "one.png").read_bytes()[16:20], "big")
    assert found == pytest.approx(pixels, abs=2)


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch) -> None:
    old = tmp_path / "report.html"
    old.write_text("old")

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    analysis, inputs = Analysis(), ReportInput()
    with pytest.raises(StoreError, match="no space left"):
        write_report(analysis, inputs, old)
    assert old.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_the_same_records_make_the_same_page(small) -> None:
    analysis, inputs, _, text = small
    assert render(analysis, inputs, specifications(charts(analysis, inputs))) == text


def test_paper_style_fits_a_column(small) -> None:
    import vl_convert

    from bystander.report.figures.fit import COLUMN, to_column
    from bystander.report.theme import config

    for name in ("scatter", "heatmap-marker", "predictors-marker"):
        before = {**small[2][name]}
        svg = vl_convert.vegalite_to_svg({**to_column(small[2][name]), "config": config("paper")})
        width = float(re.search(r'width="([0-9.]+)"', svg)[1])
        assert width < COLUMN * 1.06, name
        assert small[2][name] == before  # the page's own specification is left alone
