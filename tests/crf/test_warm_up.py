"""After a warm-up nothing is left to compile."""

import subprocess
import sys

CODE = """
import gc

import torch
from numba.core.dispatcher import Dispatcher

from napari_deepcrf.crf import DenseCRF
from napari_deepcrf.crf.warm_up import warm_up


def compiled():
    own = [f for f in gc.get_objects() if isinstance(f, Dispatcher)]
    own = [f for f in own if f.py_func.__module__.startswith("napari_deepcrf")]
    return {(f.py_func.__qualname__, signature) for f in own for signature in f.signatures}


warm_up(3)
before = compiled()
assert before
# Two images of two chunks of pixels each.
image = torch.nn.functional.avg_pool2d(255 * torch.rand(2, 3, 190, 181), 3, 1, 1)
scores = torch.randn(2, 3, 190, 181)
for quality in ("fast", "accurate"):
    crf = DenseCRF(quality=quality, iterations=2)
    with torch.no_grad():
        crf(scores, image)
        crf.trace(scores, image)
        list(crf.updates(scores, image))
    crf(scores.clone().requires_grad_(), image).log().mean().backward()
left = compiled() - before
assert not left, left
"""


def test_nothing_is_compiled_after_a_warm_up():
    """In a process of its own, as other tests compile too."""
    result = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
