"""Rules for the whole suite."""

import os

import pytest


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    """In CI a skipped GUI test is a failure: a window that was never opened proves nothing."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("CI") and item.get_closest_marker("gui"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid}: GUI tests may not be skipped in CI"
