"""Pieces of one job in threads, run by Dask, that stop when it does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from dask.base import compute
from dask.callbacks import Callback
from dask.delayed import delayed

from napari_deepcrf.interrupt import interruptible_elsewhere, raise_if_interrupted

_Piece = TypeVar("_Piece")


def run_pieces(
    work: Callable[[_Piece, threading.Event], None],
    pieces: Sequence[_Piece],
    *,
    workers: int,
    on_done: Callable[[_Piece], None],
) -> None:
    """Call ``work(piece, stopped)`` for every piece, ``workers`` at once.

    ``on_done`` is called after that, in the caller's thread. What either raises stops the job and
    reaches the caller: no piece is begun any more, and ``stopped`` tells those under way.
    """
    stopped = threading.Event()

    def one(number: int) -> int:
        if not stopped.is_set():
            raise_if_interrupted()
            work(pieces[number], stopped)
        return number

    def told(_key: object, number: int, *_: object) -> None:
        on_done(pieces[number])

    task = delayed(interruptible_elsewhere(one), pure=False)
    tasks = [task(number) for number in range(len(pieces))]
    try:
        with Callback(posttask=told):
            compute(*tasks, scheduler="threads", num_workers=workers)
    finally:
        stopped.set()
