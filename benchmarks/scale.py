"""A large image in tiles: memory, time per pixel beside an image of 1024², labels as written.

    python benchmarks/scale.py --out DIR     measures; writes DIR/scale.json and scale.md
    python benchmarks/scale.py --quick       4096² pixels only

First, tiles of 1024² pixels must give the labels of one piece. Each measurement has a process of
its own: 1024² pixels in one piece (median of five, after a warm-up), then the whole image through
``segment_large`` into OME-Zarr. The image, copies of a sample photo with noise, is made in
--scratch (some 0.9 GB for 16384²) and removed with the labels at the end. The network is a VGG16
of a quarter of the channels with random weights for three classes: its labels mean nothing, its
work is the same. 16384² takes about five minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from report import peak_bytes, publish

REFERENCE = 1024
REPEATS = 5
LEAST_ALIKE = 0.998
"""Share of labels that tiles must have in common with one piece: the bound of the tests."""
CHUNK = 1024
TELL_SECONDS = 10


def make_image(path: Path, side: int) -> None:
    """(side, side, 3) uint8 in chunks of 1024², every chunk with noise of its own."""
    import zarr
    from skimage.data import astronaut
    from skimage.transform import resize

    photo = resize(astronaut(), (CHUNK, CHUNK), preserve_range=True).astype(np.int16)
    image = zarr.create_array(path, shape=(side, side, 3), chunks=(CHUNK, CHUNK, 3), dtype=np.uint8)
    rng = np.random.default_rng(0)
    for y in range(0, side, CHUNK):
        for x in range(0, side, CHUNK):
            turned = np.rot90(photo, int(rng.integers(4)))
            noisy = turned + rng.integers(-8, 9, turned.shape, dtype=np.int16)
            block = noisy.clip(0, 255).astype(np.uint8)
            image[y : y + CHUNK, x : x + CHUNK] = block[: side - y, : side - x]


def make_predictor() -> Any:
    """Three classes, the default CRF, three scales about 320 pixels."""
    from napari_deepcrf.crf import DenseCRF
    from napari_deepcrf.inference import Predictor
    from napari_deepcrf.models import VGG16, DeepCRF, UnaryNetwork

    torch.manual_seed(0)
    backbone = VGG16(3, width=0.25, head="smallfov")
    network = UnaryNetwork(backbone, input_size=320, scales=(0.5, 0.7, 1.0))
    return Predictor(DeepCRF(network, DenseCRF(), ("a", "b", "c"), name="random"), device="cpu")


def reference(image: Path) -> dict[str, float]:
    """Seconds per pixel of one image of 1024² in one piece."""
    import zarr

    predictor = make_predictor()
    stored = zarr.open_array(image, mode="r")
    pixels = np.asarray(stored[:REFERENCE, :REFERENCE], np.uint8)
    check_tiles(predictor, pixels)
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        predictor.labels(pixels)
        times.append(time.perf_counter() - start)
    return {"us_per_pixel": statistics.median(times) / REFERENCE**2 * 1e6}


def check_tiles(predictor: Any, pixels: NDArray[np.uint8]) -> None:
    """Nothing is timed where tiles and one piece disagree."""
    from napari_deepcrf.inference.tiled_image import TiledImage

    tiled = TiledImage(pixels, predictor, tile=REFERENCE // 2).labels()
    alike = float(np.mean(tiled == predictor.labels(pixels)))
    if alike < LEAST_ALIKE:
        raise SystemExit(f"Nothing was timed: tiles agree with one piece at {alike:.4f} only")


def large(image: Path, labels: Path, memory: str) -> dict[str, float | str]:
    """The whole image; compiled code is warm, as in the reference."""
    from napari_deepcrf.inference.large import segment_large
    from napari_deepcrf.inference.memory import parse_memory

    predictor = make_predictor()
    predictor.labels(np.random.default_rng(0).integers(0, 255, (300, 300, 3), dtype=np.uint8))
    plans: list[object] = []
    began: dict[str, float] = {}

    scores = labels.with_name(labels.name + ".run") / "scores.npz"

    def report(done: int, total: int) -> None:
        now = time.perf_counter()
        if "tiles" not in began and scores.exists():
            began["tiles"] = now
        told = began.get("told", start)
        if now - told > TELL_SECONDS or done == total:
            began["told"] = now
            left = (now - start) / max(1, done) * (total - done)
            what = f"{done} of {total} windows and tiles, {now - start:.0f} s, {left:.0f} s left"
            print(f"{what}; {peak_bytes() / 1e9:.2f} GB at most", file=sys.stderr, flush=True)

    start = time.perf_counter()
    segment_large(
        str(image),
        predictor,
        labels,
        view=REFERENCE,
        memory=parse_memory(memory),
        on_progress=report,
        on_plan=plans.append,
    )
    seconds = time.perf_counter() - start
    import zarr

    pixels = float(np.prod(zarr.open_array(image, mode="r").shape[:2]))
    return {
        "seconds": seconds,
        "seconds_network": began["tiles"] - start,
        "us_per_pixel": seconds / pixels * 1e6,
        "peak_gb": peak_bytes() / 1e9,
        "plan": str(plans[0]),
    }


def in_process(*arguments: str) -> Any:
    """What this script prints when called with ``arguments`` in a process of its own."""
    command = [sys.executable, __file__, *arguments]
    finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(finished.stdout)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, help="folder for scale.json and scale.md")
    parser.add_argument("--quick", action="store_true", help="an image of 4096² pixels")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--side", type=int, default=16384)
    parser.add_argument("--memory", default="3GB")
    parser.add_argument("--only", choices=["reference", "large"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.quick:
        args.side = 4096
    folder = args.scratch / f"scale-{args.side}"
    image, labels = folder / "image.zarr", folder / "labels.ome.zarr"
    if args.only:
        found = reference(image) if args.only == "reference" else large(image, labels, args.memory)
        print(json.dumps(found))
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        print(f"making an image of {args.side}² pixels", file=sys.stderr, flush=True)
        make_image(image, args.side)
        common = ["--scratch", str(args.scratch), "--side", str(args.side), "--memory", args.memory]
        small = in_process(*common, "--only", "reference")
        whole = in_process(*common, "--only", "large")
        again = in_process(*common, "--only", "reference")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    beside = statistics.mean([small["us_per_pixel"], again["us_per_pixel"]])
    result = {
        "side": args.side,
        "memory_limit": args.memory,
        "threads": torch.get_num_threads(),
        "reference_us_per_pixel": [small["us_per_pixel"], again["us_per_pixel"]],
        **whole,
        "ratio": whole["us_per_pixel"] / beside,
    }
    table = "| side | memory allowed | peak | seconds | ns a pixel | 1024² in one piece | ratio |\n"
    table += "|---|---|---|---|---|---|---|\n"
    table += f"| {args.side} | {args.memory} | {whole['peak_gb']:.2f} GB | {whole['seconds']:.0f} "
    table += f"| {1e3 * whole['us_per_pixel']:.0f} | {1e3 * beside:.0f} | {result['ratio']:.2f} |\n"
    publish(args.out, "scale", result, table)


if __name__ == "__main__":
    main()
