"""Makes the computing libraries ready without holding the window up."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from napari_deepcrf.plugin.garbage import loading_what_lasts
from napari_deepcrf.session.events import Event, Progress

WANTED_SOON = ("napari_deepcrf.inference", "torch._dynamo", "napari_deepcrf.training.run")
"""For the first segmentation, stroke and training. Optimizers import the second at their first
step, and the third brings Matplotlib: 800 and 1,000 modules."""
NO_GPU = "No CUDA GPU found: training is slow."


@dataclass(frozen=True)
class Ready:
    """Libraries are loaded; what networks can run on, and which models there are."""

    devices: tuple[tuple[str, str], ...]
    """(value, text) in the order of the list."""
    note: str
    """Warning to show, or nothing."""
    models: tuple[str, ...]


def warm_up() -> Iterator[Event]:
    """Load PyTorch and the kernels of a first segmentation; yields `Ready`."""
    yield Progress("Loading PyTorch")
    _map_without_interpreter_lock("torch", "lib/libtorch_cpu.so")
    _map_without_interpreter_lock("llvmlite", "binding/libllvmlite.so")
    _in_a_thread_that_ends(_import_torch)
    from napari_deepcrf.session import warm_up as kernels

    if not kernels.first_kernels_are_cached():
        yield from kernels.compile_in_another_process(
            "Compiling the CPU kernels (first start only)", ("first",)
        )
    yield Progress("Loading the kernels")
    with loading_what_lasts():
        kernels.run_first_kernels()
        ready = _ready()
    yield ready


def _ready() -> Ready:
    from napari_deepcrf.device import describe_devices, resolve_device
    from napari_deepcrf.lattice.kernels import triton_problem
    from napari_deepcrf.models import zoo

    best = resolve_device()
    devices = [(device.name, device.description) for device in describe_devices()]
    devices.insert(0, ("auto", f"auto ({dict(devices)[str(best)].partition(',')[0]})"))
    note = triton_problem() if best.type == "cuda" else NO_GPU
    return Ready(tuple(devices), note, tuple(entry.name for entry in zoo.available_models()))


def warm_up_the_rest() -> Iterator[Event]:
    """Other libraries and usual kernels, which nothing waits for; work asks for its own itself."""
    from napari_deepcrf.session import warm_up as kernels

    text = "Preparing further kernels"
    yield Progress(text)
    for module in WANTED_SOON:
        with loading_what_lasts():
            importlib.import_module(module)
        yield Progress(text)
    if not kernels.kernels_are_cached():
        yield from kernels.compile_in_another_process(text)
    for labels in kernels.LABELS:
        with loading_what_lasts():
            kernels.run_kernels((labels,))
        yield Progress(text)


def _in_a_thread_that_ends(load: Callable[[], None]) -> None:
    """Load libraries in a thread that does nothing else; what fails, fails again where it is used.

    PyTorch and Triton built with pybind11 before 3.0.2 keep, for the thread that imports them, the
    state that Python has for that thread then. Qt's pool gives its threads to one job after the
    other, each with a state of its own: a later job of the same thread would wait for a lock that
    it holds itself, and the window stand still for good (pybind11's pull request 5870).
    """
    thread = threading.Thread(target=load)
    thread.start()
    thread.join()


def _import_torch() -> None:
    _load_triton_apart()
    importlib.import_module("torch")


def _load_triton_apart() -> None:
    """Load Triton, if it is installed, with its own LLVM bound to itself.

    A software OpenGL (Mesa) has mapped another LLVM into the window's process by now; Triton's
    library then takes that one's symbols for its own and crashes the process, at the latest when
    an optimiser imports ``torch._dynamo``. Deep binding keeps the two apart.
    """
    if not sys.platform.startswith("linux") or importlib.util.find_spec("triton") is None:
        return
    flags = sys.getdlopenflags()
    sys.setdlopenflags(flags | os.RTLD_DEEPBIND)
    try:
        importlib.import_module("triton._C.libtriton")
    except ImportError:
        pass
    finally:
        sys.setdlopenflags(flags)


def _map_without_interpreter_lock(package: str, library: str) -> None:
    """Map a large shared library by a foreign call, which releases the lock.

    ``import`` holds the lock while the loader relocates libtorch, 0.2–0.4 s in which the
    window would stand still. Where this does not apply, the import does all of it.
    """
    spec = importlib.util.find_spec(package)
    if not sys.platform.startswith("linux") or spec is None or spec.origin is None:
        return
    path = Path(spec.origin).parent / library
    if path.exists():
        dlopen = ctypes.CDLL(None).dlopen
        dlopen.argtypes, dlopen.restype = [ctypes.c_char_p, ctypes.c_int], ctypes.c_void_p
        dlopen(os.fsencode(path), os.RTLD_LAZY)
