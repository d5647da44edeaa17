"""Stops long work from another thread: looked at between two pieces of it.

A window can wait for the next event of a job, but not for a mean field of many megapixels or for
a step of a wide network. Whoever runs such work in a thread says so with `interruptible`, the
work calls `raise_if_interrupted` now and then, and setting the flag ends it with `Interrupted`.
Without a flag, in scripts and in other threads, that call does nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class Interrupted(BaseException):
    """The work was asked to stop: no error, so that no ``except Exception`` takes it for one."""


class _Local(threading.local):
    flag: threading.Event | None = None


_local = _Local()


@contextmanager
def interruptible(flag: threading.Event | None) -> Iterator[None]:
    """Let ``flag`` end what this thread does inside the block."""
    before, _local.flag = _local.flag, flag
    try:
        yield
    finally:
        _local.flag = before


def interruptible_elsewhere(
    work: Callable[_Arguments, _Result],
) -> Callable[_Arguments, _Result]:
    """``work`` for other threads to run, ended there by what ends this thread's."""
    flag = _local.flag

    @wraps(work)
    def carried(*args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Result:
        with interruptible(flag):
            return work(*args, **kwargs)

    return carried


def raise_if_interrupted() -> None:
    """Raise `Interrupted` if this thread's work is to stop; free of cost otherwise."""
    if _local.flag is not None and _local.flag.is_set():
        raise Interrupted
