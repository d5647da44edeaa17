"""Rules for the whole suite."""

import os
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    """In CI a skipped GUI test is a failure: a window that was never opened proves nothing."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("CI") and item.get_closest_marker("gui"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid}: GUI tests may not be skipped in CI"


@pytest.fixture
def shorten_recipe(monkeypatch: pytest.MonkeyPatch):
    """Let a named recipe take so few steps in its stages, and small crops in the first."""
    from napari_deepcrf.training import config

    def shorten(name: str, *, unary: dict, joint: dict, crop: int | None = None):
        recipe = config.named_config(name)
        if crop is not None:
            unary = {**unary, "augmentation": replace(recipe.unary.augmentation, crop=crop)}
        short = replace(
            recipe, unary=replace(recipe.unary, **unary), joint=replace(recipe.joint, **joint)
        )
        monkeypatch.setitem(config._CONFIGS, name, short)

    return shorten


class Site:
    """Files by their path on a server of this machine.

    Every request's range is noted. The next answer is cut short where ``cut_after`` says so, and
    whole files are sent where ``ignores_ranges``.
    """

    def __init__(self):
        self.files, self.ranges, self.cut_after, self.ignores_ranges = {}, [], None, False


class Handler(BaseHTTPRequestHandler):
    def __init__(self, site, *args):
        self.site = site
        super().__init__(*args)

    def do_GET(self):
        content = self.site.files.get(self.path.lstrip("/"))
        wanted = self.headers.get("Range")
        self.site.ranges.append(wanted)
        if content is None:
            self.send_error(404)
            return
        if self.site.ignores_ranges:
            wanted = None
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if wanted and start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        cut, self.site.cut_after = self.site.cut_after, None
        self.wfile.write(content[start : start + cut if cut else None])

    def log_message(self, *_):
        pass


@pytest.fixture
def site():
    site = Site()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, site))
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    site.root = f"http://127.0.0.1:{server.server_port}/"
    yield site
    server.shutdown()
    thread.join()
    server.server_close()
