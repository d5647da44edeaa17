"""`napari-deepcrf` with a recipe `compact` of a few small steps, for processes of their own.

Without batch norm, dropout and an average, so that shares of a batch come to what the whole does.
"""

import runpy
from dataclasses import replace

import torch

from napari_deepcrf.data.transforms import Augmentation
from napari_deepcrf.training import config


def shorten() -> None:
    """Four steps of stage 1 and three of stage 2, batches of four."""
    compact = config.named_config("compact")
    assert compact.unary is not None
    assert compact.joint is not None
    network = replace(compact.network, width=0.06, input_size=32, batch_norm=False, dropout=0.0)
    short = {"batch_size": 4, "copy_size": 32, "validate_every": 2, "decay": 0, "warmup": 0}
    crop = Augmentation(crop=25)
    unary = replace(
        compact.unary, **short, iterations=4, micro_batch=1, workers=0, augmentation=crop
    )
    joint = replace(compact.joint, **short, iterations=3)
    config._CONFIGS["compact"] = replace(compact, network=network, unary=unary, joint=joint)


if __name__ == "__main__":
    torch.set_num_threads(1)
    shorten()
    runpy.run_module("napari_deepcrf.cli", run_name="__main__", alter_sys=False)
