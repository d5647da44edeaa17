"""Running compiled, GIL-free tasks on as many threads as PyTorch may use."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch

from napari_deepcrf.interrupt import raise_if_interrupted


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="lattice")


def run_all(tasks: Iterable[Callable[[], None]]) -> None:
    """Run independent tasks, in any order, on ``torch.get_num_threads()`` threads.

    The caller's thread works too, so that calls from several threads cannot block each other.
    Raises `Interrupted`, before it begins, where the caller's work is to stop.
    """
    raise_if_interrupted()
    pending = list(tasks)
    helpers = min(torch.get_num_threads(), len(pending)) - 1
    queue = iter(pending)  # advancing a list iterator is atomic

    def work() -> None:
        for task in queue:
            task()

    futures = [_pool().submit(work) for _ in range(helpers)]
    work()
    for future in futures:
        # A helper that has not begun has nothing left to do; its thread may be busy elsewhere.
        if not future.cancel():
            future.result()
