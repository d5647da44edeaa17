"""`napari-deepcrf refine`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from napari_deepcrf.cli.options import Device, Json, Out


def refine(
    image: Annotated[Path, typer.Argument(help="The image file.")],
    probabilities: Annotated[
        Path, typer.Argument(help="A .npy file of class probabilities, (classes, H, W).")
    ],
    out: Out,
    w_spatial: Annotated[float, typer.Option(help="Weight of the position kernel.")] = 3.0,
    theta_gamma: Annotated[float, typer.Option(help="Its width in pixels.")] = 3.0,
    w_bilateral: Annotated[float, typer.Option(help="Weight of the colour kernel.")] = 10.0,
    theta_alpha: Annotated[float, typer.Option(help="Its width in pixels.")] = 80.0,
    theta_beta: Annotated[float, typer.Option(help="Its width in grey levels of 0-255.")] = 13.0,
    iterations: Annotated[int, typer.Option(help="Mean-field updates.", min=1)] = 5,
    overwrite: Annotated[
        bool, typer.Option(help="Replace files in OUT that are there already.")
    ] = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Align another tool's probabilities with the image's edges by a dense CRF.

    Writes the marginals as OUT/<image>.npy and their labels as OUT/<image>.png.
    """
    from napari_deepcrf.crf import CRFParameters
    from napari_deepcrf.data.image_files import read_image
    from napari_deepcrf.data.label_files import write_labels
    from napari_deepcrf.data.npy import read_array, write_array
    from napari_deepcrf.inference import refine as refine_probabilities

    written = {"marginals": out / f"{image.stem}.npy", "labels": out / f"{image.stem}.png"}
    for target in written.values():
        for source in (image, probabilities):
            if target.exists() and source.exists() and target.samefile(source):
                raise ValueError(f"out: {out} would overwrite {source}; choose another folder")
        if target.exists() and not overwrite:
            raise FileExistsError(f"out: {target} is there already; --overwrite replaces it")
    params = CRFParameters(
        w_spatial=w_spatial,
        theta_gamma=theta_gamma,
        w_bilateral=w_bilateral,
        theta_alpha=theta_alpha,
        theta_beta=theta_beta,
    )
    marginals = refine_probabilities(
        read_image(image),
        read_array(probabilities),
        params,
        iterations=iterations,
        device=device,
    )
    labels = marginals.argmax(axis=0)
    out.mkdir(parents=True, exist_ok=True)
    write_array(written["marginals"], marginals)
    write_labels(written["labels"], labels)
    if as_json:
        print(json.dumps({what: str(path) for what, path in written.items()}, indent=2))
    else:
        print("\n".join(str(path) for path in written.values()))
