"""Disks that are really full, of a folder of images and of tiles: what is finished is kept."""

import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
import zarr
from PIL import Image

from napari_deepcrf.batch.run import BatchOptions, ImageFailed, segment_files
from napari_deepcrf.batch.zarr_images import TilesDone
from napari_deepcrf.inference import Predictor
from napari_deepcrf.inference.tiled_image import TiledImage

resource = pytest.importorskip("resource", reason="Windows limits no files")


@pytest.fixture
def mount(tmp_path: Path):
    """Mount a small file system; where the machine forbids it, the test is skipped.

    The tests with a limit of files' sizes run everywhere.
    """
    mounted: list[Path] = []

    def tmpfs(options: str, *, remount: bool = False) -> Path:
        place = tmp_path / "disk"
        place.mkdir(exist_ok=True)
        how = f"remount,{options}" if remount else options
        command = ["mount", "-t", "tmpfs", "-o", how, "tmpfs", str(place)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            reason = getattr(error, "stderr", None) or str(error)
            pytest.skip(f"mounting is not permitted here: {reason.strip()}")
        if not remount:
            mounted.append(place)
        return place

    yield tmpfs
    for place in mounted:
        subprocess.run(["umount", str(place)], check=True)


@contextmanager
def _files_of_at_most(size: int) -> Iterator[None]:
    """The kernel lets this process write no file beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def noise(tmp_path: Path) -> list[Path]:
    """Four image files of 75 × 500 pixels: labels of 37 kB each as NumPy files."""
    photos = []
    for n in range(4):
        pixels = np.random.default_rng(n).integers(0, 256, (75, 500, 3), dtype=np.uint8)
        photos.append(tmp_path / f"{n}.png")
        Image.fromarray(pixels).save(photos[-1])
    return photos


@pytest.fixture
def slide(tmp_path: Path, monkeypatch) -> Path:
    """A Zarr image of twelve tiles, done one after the other."""
    monkeypatch.setattr("napari_deepcrf.inference.memory.DEFAULT_TILE", 32)
    monkeypatch.setattr("napari_deepcrf.inference.memory.os.cpu_count", lambda: 1)
    pixels = np.random.default_rng(0).integers(0, 256, (75, 101, 3), dtype=np.uint8)
    path = tmp_path / "slide.zarr"
    zarr.create_array(path, data=pixels, chunks=(40, 40, 3))
    return path


@pytest.fixture
def slide_labels(slide, model) -> np.ndarray:
    """What all tiles make together."""
    return TiledImage(slide, Predictor(model), view=101).labels()


def _tiles(out: Path) -> int:
    return len((out / "slide.ome.zarr.run" / "tiles.txt").read_text().split())


def test_a_folder_on_a_full_disk(run, mount, noise, files_in):
    out = mount("size=160k") / "out"
    with pytest.raises(OSError, match="No space left on device; what is finished is kept"):
        run(noise, out, kind="numpy")
    finished = {name for name in files_in(out) if name.endswith(".npy")}
    assert 0 < len(finished) < 4
    assert all(np.load(out / name).shape == (75, 500) for name in finished)
    assert not list(out.rglob("*.part"))
    mount("size=2m", remount=True)
    done, failed = run(noise, out, kind="numpy")
    assert (len(done), sum(event.skipped for event in done), failed) == (4, len(finished), [])


def test_tiles_on_a_full_disk(run, mount, slide, slide_labels):
    out = mount("size=64k") / "out"
    with pytest.raises(OSError, match="No space left on device; what is finished is kept"):
        run([slide], out)
    assert 0 < _tiles(out) < 12
    assert not list(out.rglob("*.partial"))
    mount("size=2m", remount=True)
    (done,), failed = run([slide], out)
    assert (done.skipped, failed) == (False, [])
    np.testing.assert_array_equal(zarr.open_group(done.result)["0"], slide_labels)


def test_a_folder_where_files_cannot_grow(run, photos, tmp_path, files_in):
    out = tmp_path / "out"
    with _files_of_at_most(500):
        done, failed = run(photos, out, kind="numpy")  # 841 bytes each
    assert (done, len(failed)) == ([], 4)
    assert all(event.reason.endswith("File too large") for event in failed)
    assert set(files_in(out)) == {"summary.csv"}
    assert len(run(photos, out, kind="numpy")[0]) == 4


def test_tiles_where_files_cannot_grow(run, model, slide, slide_labels, tmp_path):
    out = tmp_path / "out"
    with closing(segment_files([slide], out, model, BatchOptions())) as events:
        next(event for event in events if isinstance(event, TilesDone) and event.done == 9)
    finished = _tiles(out)
    assert 4 <= finished < 12  # their record is as long as a file may be, so that it grows no more
    limit, table = _files_of_at_most(8), pytest.raises(OSError, match="File too large")
    events = segment_files([slide], out, model, BatchOptions())
    with limit, table:  # not even the table can be written
        failure = next(event for event in events if isinstance(event, ImageFailed))
        next(events)
    assert failure.reason.endswith("File too large")
    assert _tiles(out) == finished
    assert not list(out.rglob("*.partial"))
    (done,), failed = run([slide], out)
    assert (done.skipped, failed) == (False, [])
    np.testing.assert_array_equal(zarr.open_group(done.result)["0"], slide_labels)


def test_a_disk_that_cannot_be_written_to(run, photos, mount):
    disk = mount("size=1m")
    mount("ro", remount=True)
    with pytest.raises(OSError, match=r"^out: .* cannot be written to: Read-only file system$"):
        run(photos, disk / "out")
