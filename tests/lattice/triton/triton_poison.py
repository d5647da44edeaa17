"""A pytest plugin: indices and integers are checked, and unwritten memory is found.

No conftest, for that would import Triton into every run of the tests, whether it is there or not.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from triton.runtime.interpreter import InterpreterOptions, interpreter_builder

interpreter_builder.options = InterpreterOptions(debug=True)


def pytest_configure(config: pytest.Config) -> None:
    """On a GPU, PyTorch's deterministic mode warns of the operations that have none."""
    config.addinivalue_line("filterwarnings", "ignore:.*deterministic")


@pytest.fixture(autouse=True)
def poison() -> Iterator[None]:
    """Fill every torch.empty with NaN, as PyTorch does in its deterministic mode."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)
