"""`napari-deepcrf segment`."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_deepcrf.cli.options import Device, Json, Model, Out, progress_bar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def segment(
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    out: Out,
    model: Model = "voc-compact",
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Write the labels of every image into OUT as a PNG with a colour per class.

    An image that cannot be used stops nothing: it is named at the end and the exit code is 2.
    """
    targets = _label_paths(images, out)

    from napari_deepcrf.data.image_files import read_image, write_labels
    from napari_deepcrf.inference import Predictor

    predictor = Predictor(model, device=device)
    out.mkdir(parents=True, exist_ok=True)
    done: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    with progress_bar() as progress:
        for path, target in progress.track(list(targets.items()), description="Segmenting"):
            try:
                labels = predictor.segment(read_image(path)).labels
                write_labels(target, labels)
            except (ValueError, TypeError, OSError) as error:
                failed.append({"image": str(path), "error": str(error)})
                continue
            shares = _class_shares(labels, predictor.class_names)
            done.append({"image": str(path), "labels": str(target), "classes": shares})
            if not as_json:
                listing = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
                print(f"{target}: {listing}")
    if as_json:
        print(json.dumps({"done": done, "failed": failed}, indent=2))
    for failure in failed:
        image, reason = failure["image"], failure["error"]
        print(f"error: {reason if image in reason else f'{image}: {reason}'}", file=sys.stderr)
    if failed:
        raise typer.Exit(2)


def _label_paths(images: Sequence[Path], out: Path) -> dict[Path, Path]:
    """The PNG in `out` for every image; raises where two would share one or one is lost."""
    targets: dict[Path, Path] = {}
    taken: dict[Path, Path] = {}
    for image in images:
        target = out / f"{image.stem}.png"
        if taken.setdefault(target, image) != image:
            raise ValueError(f"{taken[target]} and {image} would both be written to {target}")
        if target.exists() and image.exists() and target.samefile(image):
            raise ValueError(f"--out {out}: would overwrite the image {image}; choose another")
        targets[image] = target
    return targets


def _class_shares(labels: "NDArray[np.integer[Any]]", names: Sequence[str]) -> dict[str, float]:
    """The share of every class that covers at least 0.5 % of the pixels, largest first."""
    import numpy as np

    shares = np.bincount(labels.ravel(), minlength=len(names)) / labels.size
    order = np.argsort(-shares, kind="stable")
    return {names[k]: round(float(shares[k]), 4) for k in order if shares[k] >= 0.005}
