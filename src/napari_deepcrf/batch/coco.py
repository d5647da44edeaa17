"""One image's labels as a COCO data set with compressed run lengths."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def encode(labels: NDArray[np.uint8], class_names: Sequence[str], image: str) -> bytes:
    """JSON of COCO's form: the image, the categories, one annotation for each class in it.

    Category k is class k, background included; annotations are crowds, as COCO stores regions of
    "stuff", with areas in pixels and boxes as (x, y, width, height).
    """
    from pycocotools import mask

    height, width = labels.shape
    annotations: list[dict[str, Any]] = []
    for category in np.unique(labels).tolist():
        runs = mask.encode(np.asfortranarray(labels == category, dtype=np.uint8))
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": 1,
                "category_id": category,
                "iscrowd": 1,
                "area": int(mask.area(runs)),
                "bbox": mask.toBbox(runs).tolist(),
                "segmentation": {"size": runs["size"], "counts": runs["counts"].decode("ascii")},
            }
        )
    content = {
        "images": [{"id": 1, "file_name": image, "height": height, "width": width}],
        "categories": [{"id": k, "name": name} for k, name in enumerate(class_names)],
        "annotations": annotations,
    }
    return json.dumps(content).encode()
