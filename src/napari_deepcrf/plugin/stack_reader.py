"""A layer's whole stack as one lazy array, for batches and tiles."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_deepcrf.plugin.images import channel_axis, finest
from napari_deepcrf.session.images import first_three_channels, stretched_channels

if TYPE_CHECKING:
    from napari.layers import Image


def open_stack(layer: Image) -> Callable[[], Any]:
    """Opens the layer's planes in a worker, as one lazy array (*S, H, W, C) of what networks see.

    An axis of channels has length 1 in it.
    """
    return partial(_open_stack, finest(layer), channel_axis(layer))


def _open_stack(data: Any, channel: int | None) -> Any:
    import dask.array as da

    from napari_deepcrf.inference.lazy_image import open_array

    if channel is None:
        return open_array(data)
    planes = (1,) * (data.ndim - 2)
    chunks = (*planes[:channel], -1, *planes[channel + 1 :], -1, -1)
    lazy = isinstance(data, da.Array)
    array = data.rechunk(chunks) if lazy else da.from_array(data, chunks=chunks, name=False)

    def as_network_sees(block: np.ndarray) -> np.ndarray:
        channels = np.moveaxis(block, channel, 0)
        planes_of_block = channels.reshape(len(channels), *block.shape[-2:])
        rgb = first_three_channels(stretched_channels(planes_of_block))
        return rgb[(None,) * len(planes)]

    blocks = [(1,) * n for n in array.shape[:-2]]
    blocks[channel] = (1,)
    return array.map_blocks(
        as_network_sees,
        new_axis=array.ndim,
        chunks=(*blocks, *array.chunks[-2:], (3,)),
        dtype=np.float32,
        meta=np.empty((0,) * (array.ndim + 1), np.float32),
    )
