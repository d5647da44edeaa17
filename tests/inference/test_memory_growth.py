"""What only many images or a killed process shows; minutes of work."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import zarr

from napari_deepcrf.inference import memory
from napari_deepcrf.inference.tiled_image import TiledImage

KILLED = """
import sys
import numpy as np
from napari_deepcrf.inference import Predictor
from napari_deepcrf.inference.large import segment_large

image, model, out = sys.argv[1:]
predictor = Predictor(model, device="cpu")
tell = lambda *progress: print(*progress, flush=True)
segment_large(image, predictor, out, tile=64, workers=1, on_progress=tell)
"""


@pytest.mark.slow
def test_five_hundred_images_take_no_more_memory_than_the_first(predictor, photo):
    def label(number: int) -> None:
        height, width = 96 + number % 17, 128 + number % 13
        predictor.labels(np.roll(photo, number, axis=0)[:height, :width])

    for number in range(60):
        label(number)
    before = memory.resident()
    for number in range(500):
        label(number)
    assert memory.resident() < 1.05 * before


@pytest.mark.slow
def test_a_killed_run_goes_on_from_its_finished_tiles(predictor, photo, tmp_path):
    checkpoint, out = tmp_path / "colours.safetensors", tmp_path / "labels.ome.zarr"
    predictor.model.save(checkpoint)
    zarr.create_array(tmp_path / "image.zarr", data=photo, chunks=(64, 64, 3))
    command = [
        sys.executable,
        "-c",
        KILLED,
        str(tmp_path / "image.zarr"),
        str(checkpoint),
        str(out),
    ]
    tiles = tmp_path / "labels.ome.zarr.run" / "tiles.txt"

    def finished() -> int:
        return len(tiles.read_text().splitlines()) if tiles.exists() else 0

    running = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while finished() < 3 and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert running.poll() is None, "it ended before it could be killed"
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    kept = finished()
    assert kept >= 3
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert told[0] == f"{kept} 24"
    assert finished() == 24
    expected = TiledImage(photo, predictor, tile=64).labels()
    np.testing.assert_array_equal(zarr.open_group(out, mode="r")["0"][:], expected)
    assert not list(out.rglob("*.partial"))
