"""A real browser without a window: Debian's Chromium, driven by playwright."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM: Final = Path("/usr/bin/chromium")

needs_chromium = pytest.mark.skipif(
    not CHROMIUM.exists() and not os.environ.get("CI"),
    reason="there is no /usr/bin/chromium; on Debian: apt-get update && apt-get install -y chromium",
)
"""Elsewhere it is skipped, in CI it fails."""


@contextmanager
def running_browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Its own sandbox needs rights that root in a container has not. It is shown our own page alone.
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=arguments)
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
