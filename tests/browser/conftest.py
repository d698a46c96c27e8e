"""Debian's Chromium, headless, with the made-up results of tests/report_samples.py in a report."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from subnetbench.harness.report import Options, write_page


@pytest.fixture(scope="session")
def report(samples: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_page(samples.everything(folder / "results"), folder / "report.html", Options(title="Samples <b>&"))
    return folder / "report.html"


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("Debian's package chromium is not installed")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Without a sandbox of its own, which root in a container cannot have; the pages are ours.
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


class Watched:
    """A page with everything that it fetched, printed and raised."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.requests: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))


@pytest.fixture(params=[(1280, 900), (390, 844)], ids=["wide", "narrow"])
def window(request: pytest.FixtureRequest) -> tuple[int, int]:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def opened(browser: Any, report: Path, window: tuple[int, int]) -> Iterator[Watched]:
    """The report in a new window, drawn; nothing may have been fetched or complained of when the test ends."""
    width, height = window
    context = browser.new_context(viewport={"width": width, "height": height}, offline=True, accept_downloads=True)
    watched = Watched(context.new_page())
    watched.page.goto(report.as_uri())
    watched.page.wait_for_selector("html[data-ready]")
    yield watched
    context.close()
    outside = [url for url in watched.requests if not url.startswith(("data:", "blob:"))]
    assert outside == [report.as_uri()]
    assert watched.complaints == []
