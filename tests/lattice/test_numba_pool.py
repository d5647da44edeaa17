"""Sharing tasks between threads."""

from __future__ import annotations

import threading

import pytest
import torch

from napari_deepcrf.lattice.numba_pool import run_all


@pytest.fixture(params=[1, 2, 5])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_every_task_runs_once(threads):
    done: list[int] = []
    run_all([lambda n=n: done.append(n) for n in range(100)])
    assert sorted(done) == list(range(100))


def test_an_error_of_a_task_reaches_the_caller(threads):
    def fail():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_all([fail] * 3)


def test_calls_from_many_threads_and_within_tasks_end(threads):
    done: list[int] = []

    def call():
        run_all([lambda: run_all([lambda: done.append(1)] * 3)] * 3)

    callers = [threading.Thread(target=call) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=20)
        assert not caller.is_alive()
    assert len(done) == 8 * 9
