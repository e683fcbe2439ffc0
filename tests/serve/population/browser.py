"""A page with the view alone, served with the policy of the server's own, and a browser to look at it with."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
UI = Path(__file__).parents[3] / "src" / "zaya" / "serve" / "ui"
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'"
TYPES = {".js": "text/javascript", ".css": "text/css", ".html": "text/html"}
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


class _Files(SimpleHTTPRequestHandler):
    def translate_path(self, path: str) -> str:
        folder, _, name = path.split("?")[0].lstrip("/").partition("/")
        return str({"ui": UI, "tests": HERE}.get(folder, HERE / "nothing") / name)

    def guess_type(self, path: str | os.PathLike[str]) -> str:
        return TYPES.get(Path(path).suffix, "text/plain")

    def end_headers(self) -> None:
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def harness() -> Iterator[str]:
    """The address of the page."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Files)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/tests/harness.html"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@contextmanager
def browser() -> Iterator[Any]:
    """Chromium, by `ZAYA_CHROMIUM` or by its name; without one the test is skipped."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = os.environ.get("ZAYA_CHROMIUM") or next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium: set ZAYA_CHROMIUM to one")
    with playwright.sync_playwright() as play:
        found = play.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()
