"""The report in a real browser: it loads from the disk alone, sorts, filters, drills down, draws and saves."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

WIDE = pytest.mark.parametrize("window", [(1280, 900)], ids=["wide"])
CONTESTS = {"classification": "0", "retrieval": "1", "text_image": "2"}


def _column(page: Any, title: str) -> list[str]:
    heads = page.locator(".board thead th").all_inner_texts()
    column = next(i for i, text in enumerate(heads) if text.split(" ")[0] == title)
    return page.locator(f".board tbody tr > :nth-child({column + 1})").all_inner_texts()


def _number(text: str) -> float:
    return float(text.split(" ")[0]) if text not in ("", "–") else float("nan")


def _choose(page: Any, task: str) -> None:
    page.get_by_label("Data, task and protocol").select_option(CONTESTS[task])


def test_it_loads_alone_and_fits_the_window(opened: Any, window: tuple[int, int]) -> None:
    page = opened.page
    assert page.title() == "Samples <b>&"
    assert page.locator("h1").inner_text() == "Samples <b>&"
    assert page.evaluate("document.documentElement.scrollWidth") <= window[0]
    for task in CONTESTS:
        _choose(page, task)
        page.wait_for_timeout(100)
        for drawing in page.locator("figure svg").all():
            box = drawing.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= window[0]
    page.screenshot(full_page=True)


def test_nothing_in_names_configs_or_errors_takes_effect(opened: Any) -> None:
    page = opened.page
    text = page.locator("main").inner_text()
    assert "</script><script>window.hacked = true</script><img src=x" in text
    for button in page.locator(".board button.row, #failures button.row").all():
        button.click()
        page.locator("dialog").get_by_role("button", name="Close").click()
    page.get_by_label("Filter").fill("<img src=x>")
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 2


@WIDE
def test_columns_sort_both_ways(opened: Any) -> None:
    page = opened.page
    ranks = [_number(text) for text in _column(page, "rank")]
    known = [rank for rank in ranks if not np.isnan(rank)]
    assert known == sorted(known) == ranks[: len(known)]
    for title in ("sparsity", "top1"):
        head = page.locator(".board thead").get_by_role("button", name=title, exact=True)
        for direction in ("descending", "ascending"):
            head.click()
            assert page.locator(f".board th[aria-sort={direction}]").inner_text().startswith(title)
            values = np.array([_number(text) for text in _column(page, title)])
            known = values[~np.isnan(values)]
            assert len(known) >= 7
            assert np.isnan(values[len(known) :]).all()  # what is missing stays last
            steps = np.diff(known)
            assert (steps <= 0).all() if direction == "descending" else (steps >= 0).all()


FILTERS = {
    "edge": 4,
    "edge sparsity>=0.7": 2,
    "sparsity>0.4 sparsity<0.6": 2,
    "method=dense": 1,
    "method!=dense lr=0.1": 6,
    "top1>=0.99": 0,
    "no such word": 0,
    "hacked": 1,
    "": 8,
}


@WIDE
def test_filters_choose_rows_and_figures_follow(opened: Any) -> None:
    page = opened.page
    for words, rows in FILTERS.items():
        page.get_by_label("Filter").fill(words)
        assert page.locator(".board tbody tr").count() == rows, words
        assert f"{rows} of 8 rows" in page.locator(".board").inner_text()
        with_cost = {"hacked": 0, "": 7}.get(words, rows)
        assert page.locator("#trade-off svg .mark").count() == with_cost, words


def test_a_row_opens_with_everything_about_its_runs(opened: Any) -> None:
    page = opened.page
    page.get_by_label("Filter").fill("edge sparsity=0.5")
    page.locator(".board button.row").click()
    dialog = page.locator("dialog")
    assert dialog.locator("details.run").count() == 3
    dialog.locator("details.run summary").first.click()
    text = dialog.inner_text()
    for expected in (
        "subnetbench run edge_popup emoji --task classification --seed 0",
        "subnetbench reproduce run-",
        "0123456789abcdef0123456789abcdef01234567",
        "finished edge_popup with seed 0",
        "config.sparsity: 0.5",
        "AMD EPYC",
        "machine-one",
        "2.15.0",
    ):
        assert expected in text, expected
    box = dialog.bounding_box()
    assert box["x"] >= 0
    page.keyboard.press("Escape")
    assert page.locator("dialog").count() == 0


@WIDE
def test_failed_runs_say_why(opened: Any) -> None:
    page = opened.page
    page.locator("#failures button.row").click()
    assert "window.hacked" in page.locator("dialog .error").inner_text()


@WIDE
def test_it_works_by_keyboard_alone(opened: Any) -> None:
    page = opened.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the leaderboard"
    head = page.locator(".board thead").get_by_role("button", name="sparsity", exact=True)
    head.focus()
    page.keyboard.press("Enter")
    assert page.locator(".board th[aria-sort=descending]").inner_text().startswith("sparsity")
    assert page.evaluate("document.activeElement.textContent") == "sparsity"
    page.locator("#trade-off .mark").first.focus()
    first = page.evaluate("document.activeElement.getAttribute('aria-label')")
    page.keyboard.press("ArrowRight")
    second = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert first != second
    assert "macs_nonzero" in second
    page.keyboard.press("Enter")
    assert page.locator("dialog").get_attribute("aria-label") == second.split(": ")[0]


@WIDE
def test_the_front_is_the_one_that_python_computes(opened: Any, report: Path) -> None:
    from subnetbench.harness.report import report_content
    from subnetbench.harness.report.figure_rows import pareto_front

    content = report_content(report.parent / "results")
    rows = [row for row in content.rows if {"macs_nonzero", "top1"} <= row.cells.keys()]
    front = pareto_front(content, rows, "macs_nonzero", "top1")
    labels = opened.page.locator("#trade-off .mark").evaluate_all(
        "all => all.map(mark => mark.getAttribute('aria-label'))"
    )
    assert sum(label.endswith("on the Pareto front") for label in labels) == len(front)
    assert opened.page.locator("#trade-off .front").get_attribute("d").count("L") == len(front) - 1


@WIDE
def test_costs_and_metrics_can_be_chosen(opened: Any) -> None:
    page = opened.page
    page.locator("#cost select").first.select_option("sparsity")
    assert "sparsity (more is better)" in page.locator("#trade-off svg").inner_html()
    page.locator("#scatter select").select_option("loss")
    assert ">loss<" in page.locator("#seeds svg").inner_html()
    page.get_by_text("Choose columns").click()
    page.locator("details.columns").get_by_label("latency_ms").check()
    assert len(_column(page, "latency_ms")) == 8
    page.get_by_label("standard deviations").check()
    assert " sd " in _column(page, "top1")[0]


@WIDE
def test_capacity_matrices_show_their_values(opened: Any) -> None:
    page = opened.page
    _choose(page, "retrieval")
    assert page.locator("#matrix .mark").count() == 25
    label = page.locator("#matrix .mark").first.get_attribute("aria-label")
    assert label.startswith("queries by capacity")
    page.locator("#matrix .mark").first.click()
    assert page.locator("dialog").get_attribute("aria-label").startswith("prunnet")


@WIDE
def test_learning_curves_cascades_and_studies_are_drawn(opened: Any) -> None:
    page = opened.page
    assert page.locator("#curves .curve").count() == 21
    page.locator("#learning select").select_option("train/loss")
    assert "train/loss" in page.locator("#curves svg").inner_html()
    assert page.locator("#study .mark").count() == 15
    assert page.locator("#study .best").count() == 1
    assert page.get_by_role("region", name="Best trials").locator("tbody tr").count() == 15
    # The most important parameter is chosen first; texts have positions of their own on the axis.
    assert page.locator("#tuning select").nth(1).input_value() == "lr"
    assert page.locator("#slice .mark").count() == 14
    assert "lr, logarithmic" in page.locator("#slice svg").text_content()
    page.locator("#tuning select").nth(1).select_option("mode")
    assert len({mark.bounding_box()["x"] for mark in page.locator("#slice .mark circle").all()}) == 2
    assert page.locator("#importances .bar").count() == 3
    assert page.locator("#importances .bar title").first.text_content() == "lr: 0.7500"
    summary = page.locator("#study-summary").inner_text()
    assert summary.startswith(
        "budget 15 trials · 11 finished, 3 pruned, 1 failed · 0.250 device hours spent · sampler tpe"
    )
    best = page.get_by_role("region", name="Best configuration")
    assert best.locator("thead th").all_inner_texts()[:4] == ["trial", "top1", "lr", "mode"]
    assert best.locator("tbody td").all_inner_texts()[:3] == ["0.5000", "0.03", "a"]
    best.locator("button.row").click()
    assert page.locator("dialog").is_visible()
    page.locator("dialog").get_by_role("button", name="Close").click()
    _choose(page, "text_image")
    assert page.locator("#cascade-curve .mark").count() == 4
    assert page.locator("#cascades select").first.input_value() == "lifetime_macs_small_world"


@WIDE
def test_figures_are_saved_as_svg_and_png(opened: Any, tmp_path: Path) -> None:
    page = opened.page
    for kind in ("SVG", "PNG"):
        with page.expect_download() as waiting:
            page.locator("#trade-off").get_by_role("button", name=f"as {kind}").click()
        saved = tmp_path / waiting.value.suggested_filename
        waiting.value.save_as(saved)
        assert saved.name == f"trade-off.{kind.lower()}"
        if kind == "PNG":
            with Image.open(io.BytesIO(saved.read_bytes())) as image:
                assert image.width >= 900
                colours = {pixel for _, pixel in image.convert("RGB").getcolors(10**6)}
                assert {(0, 158, 115), (255, 255, 255)} <= colours  # the marks of a method, on white
        else:
            assert saved.read_text().startswith("<svg xmlns=")


@WIDE
def test_it_prints_every_row_and_no_controls(opened: Any, samples: Any) -> None:
    page = opened.page
    page.emulate_media(media="print")
    assert not page.get_by_label("Filter").is_visible()
    assert not page.locator(".downloads").first.is_visible()
    assert page.locator(".board tbody tr").last.is_visible()
    assert len(page.pdf(format="A4", landscape=True)) > 20_000


@WIDE
def test_colours_differ_in_lightness_and_shape(opened: Any) -> None:
    """Who sees no colour at all still has shapes: no two methods share one."""
    shapes = opened.page.evaluate("[...looks(['a','b','c','d','e','f','g','h']).values()].map(look => look.shape)")
    assert len(set(shapes)) == 8
    both = opened.page.evaluate("[...looks([...Array(40).keys()].map(String)).values()].map(l => l.shape + l.colour)")
    assert len(set(both)) == 40
