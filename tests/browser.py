"""A headless Chromium that looks at pages on this machine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Dialog

NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")  # it runs an event loop in this thread, beside which other tests can start none
def browser() -> Iterator[Browser]:
    """A browser; tests are skipped where none is installed."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if not path:
        pytest.skip("there is no Chromium; try `apt-get install chromium`")
    from playwright.sync_api import sync_playwright  # late: most test processes need no browser

    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=path) as browser:
        yield browser


class Watched:
    """Makes contexts of a browser, and gathers what a page on disk must not do."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self.problems: list[str] = []

    def context(self, width: int = 1280, height: int = 800, **options: Any) -> BrowserContext:
        context = self.browser.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(20_000)
        context.on("request", lambda request: self._check(request.url))
        context.on("weberror", lambda error: self.problems.append(f"a script failed: {error.error}"))
        context.on("dialog", self._dismiss)
        return context

    def _check(self, url: str) -> None:
        if not url.startswith(("file:", "blob:", "data:")):
            self.problems.append(f"{url} was requested")

    def _dismiss(self, dialog: Dialog) -> None:
        self.problems.append(f"a script said {dialog.message}")
        dialog.dismiss()


@pytest.fixture
def watched(browser: Browser) -> Iterator[Watched]:
    """Contexts of the browser; the test fails if a script fails, opens a dialog, or requests anything but files."""
    watched = Watched(browser)
    yield watched
    for context in browser.contexts:
        context.close()
    assert watched.problems == []
