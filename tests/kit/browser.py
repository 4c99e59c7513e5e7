"""A real browser without a window: Debian's Chromium, driven by playwright."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.kit.programs import CannotGet, find, how_to_get


@contextmanager
def running_browser() -> Iterator[Browser]:
    """Raises CannotGet where it is missing. Tests also say `programs.needs("chromium")`, and are skipped there."""
    chromium = find("chromium")
    if chromium is None:
        raise CannotGet(how_to_get("chromium"))
    with sync_playwright() as playwright:
        # Its own sandbox needs rights that root in a container has not. It is shown our own page alone.
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=str(chromium), args=arguments)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(
    browser: Browser, url: str, *, scheme: Literal["light", "dark"] = "light", width: int = 1280, height: int = 900
) -> Iterator[Page]:
    """The page at this address. Fails the test if the page's script fails, or breaks its own rules."""
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": height})
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console", lambda line: complaints.append(line.text) if line.type == "error" and _counts(line.text) else None
    )
    try:
        page.goto(url)
        yield page
        assert [line for line in complaints if _counts(line)] == []
    finally:
        context.close()


def _counts(line: str) -> bool:
    """An answer that refuses, or a server that is gone, is said on the page."""
    return "Failed to load resource" not in line
