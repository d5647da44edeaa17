"""One dense CRF over the planes of a stack: labels that agree from plane to plane."""

from __future__ import annotations

import math
from collections.abc import Generator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_deepcrf.crf import DenseCRF
from napari_deepcrf.device import with_fallback
from napari_deepcrf.inference.lazy_image import GreyLevels, open_array, read_plane
from napari_deepcrf.inference.memory import check_room, volume_bytes
from napari_deepcrf.inference.predictor import Predictor, ProgressCallback
from napari_deepcrf.models.crf_config import build_crf, crf_configuration


def segment_volume(
    image: Any,
    predictor: Predictor,
    *,
    planes_width: float,
    crf: DenseCRF | None = None,
    channel_axis: int | None = None,
    memory: int | None = None,
    on_progress: ProgressCallback | None = None,
) -> NDArray[np.uint8]:
    """Label a stack with the network plane by plane and one 3-D CRF over Z or T.

    Each plane is an image of its own to the network, as for `Predictor`; to the CRF, which compares
    colours of different planes, all have the grey levels of the whole stack.

    Parameters
    ----------
    image
        (D, H, W) or (D, H, W, C), whatever `lazy_image.open_array` takes.
    planes_width
        Width of both kernels over planes, in planes; the CRF's own hold within a plane.
    crf
        In place of the model's own.
    memory
        Bytes for the whole process; by default half of the free memory may be used.
    on_progress
        Called with planes scored, and one more for the CRF; what it raises stops the work.

    Returns
    -------
    NDArray[np.uint8]
        (D, H, W).

    Raises
    ------
    ValueError
        For other shapes, a width that is not positive, or, before anything is computed, work that
        takes more memory than there may be used.
    """
    report = on_progress or (lambda done, total: None)
    steps = volume_steps(
        image,
        predictor,
        planes_width=planes_width,
        crf=crf,
        channel_axis=channel_axis,
        memory=memory,
    )
    while True:
        try:
            report(*next(steps))
        except StopIteration as end:
            labels: NDArray[np.uint8] = end.value
            return labels


def volume_steps(
    image: Any,
    predictor: Predictor,
    *,
    planes_width: float,
    crf: DenseCRF | None = None,
    channel_axis: int | None = None,
    memory: int | None = None,
) -> Generator[tuple[int, int], None, NDArray[np.uint8]]:
    """`segment_volume` step by step: yields its progress, returns its labels."""
    stack = open_array(image, channel_axis=channel_axis)
    if stack.ndim != 4:
        raise ValueError(f"image: expected one stack (D, H, W), got shape {stack.shape[:-1]}")
    depth, height, width = stack.shape[:3]
    classes = len(predictor.class_names)
    needed = volume_bytes((depth, height, width), classes)
    check_room(needed, memory, f"a 3-D CRF over {depth}×{height}×{width} pixels")
    volume_crf = crf_over_planes(crf or predictor.model.crf, planes_width)

    levels = GreyLevels.of(stack)
    scores = np.empty((classes, depth, height, width), np.float32)
    colours = np.empty((3, depth, height, width), np.float32)
    for z in range(depth):
        yield z, depth + 1
        plane = read_plane(stack, (z,))
        scores[:, z] = predictor.unary(plane)
        # One scale for all: colours of different planes are compared.
        colours[:, z] = levels.rgb(plane[..., :3]).transpose(2, 0, 1)
    yield depth, depth + 1

    @torch.inference_mode()
    def work(device: torch.device) -> NDArray[np.uint8]:
        tensors = (torch.from_numpy(array)[None].to(device) for array in (scores, colours))
        marginals = volume_crf.to(device)(*tensors)[0]
        labels: NDArray[np.uint8] = marginals.max(0).indices.to(torch.uint8).cpu().numpy()
        return labels

    labels = with_fallback(predictor.device, work)
    yield depth + 1, depth + 1
    return labels


def crf_over_planes(crf: DenseCRF, planes_width: float) -> DenseCRF:
    """The same CRF for volumes, with a width over planes beside those within a plane.

    Raises ValueError where the width is not positive and finite.
    """
    if not (math.isfinite(planes_width) and planes_width > 0):
        raise ValueError(f"planes_width: expected a positive, finite number, got {planes_width}")
    configuration = crf_configuration(crf)

    def deepen(kernel: dict[str, Any], name: str) -> None:
        value = kernel[name]
        within = value if isinstance(value, (list, tuple)) else (value, value)
        kernel[name] = (planes_width, *within)

    for name in ("theta_gamma", "theta_alpha"):
        deepen(configuration["parameters"], name)
    for kernel in configuration["extra_kernels"]:
        deepen(kernel, "theta_position")
    return build_crf(configuration, image_dims=3).eval()
