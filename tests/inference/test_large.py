"""Large images in tiles: no seams, no more memory than allowed, nothing lost on the way."""

import errno
import json
import shutil

import dask.array as da
import numpy as np
import pytest
import torch
import zarr

import napari_deepcrf as ndc
from napari_deepcrf.inference import Predictor, memory
from napari_deepcrf.inference.large import segment_large
from napari_deepcrf.inference.tile_crf import lattice_phase
from napari_deepcrf.inference.tiled_image import TiledImage
from napari_deepcrf.lattice.lattice import Lattice


def _near_borders(shape: tuple[int, int], tile: int, within: int) -> np.ndarray:
    """(H, W) whether a pixel lies within so many pixels of a border between tiles."""
    near = [
        np.isin(np.arange(n) % tile, [*range(within), *range(tile - within, tile)])
        & (np.arange(n) >= within)
        & (np.arange(n) < n - within)
        for n in shape
    ]
    return near[0][:, None] | near[1]


def check_seamless(labels: np.ndarray, whole: np.ndarray, tile: int) -> None:
    """At most 0.2 % of the labels differ, and no more at borders than chance explains."""
    wrong = labels != whole
    assert wrong.mean() <= 0.002
    near = _near_borders(wrong.shape, tile, within=4)
    # Wrong labels come in clumps: three standard deviations of clumps of 16.
    share = near.mean()
    expected, spread = share * wrong.sum(), np.sqrt(16 * share * (1 - share) * wrong.sum())
    assert wrong[near].sum() <= expected + 3 * spread + 16
    # Nor do edges between labels run along a border that are not there in the whole: wrong labels
    # anywhere make up to two edges each.
    for axis in (0, 1):
        borders = np.arange(tile, wrong.shape[axis], tile)
        edges, true_edges = (
            (np.take(a, borders, axis) != np.take(a, borders - 1, axis)) for a in (labels, whole)
        )
        assert (edges & ~true_edges).sum() <= 2 * 0.002 * edges.size + 4


@pytest.fixture(scope="module")
def whole(predictor, photo) -> np.ndarray:
    """The labels of the photo in one piece; the CRF has changed many of them."""
    result = predictor.segment(photo)
    assert (result.labels != result.unary.argmax(0)).mean() > 0.01
    assert np.bincount(result.labels.ravel()).min() > 0.05 * result.labels.size
    return result.labels


@pytest.mark.parametrize("tile", [64, 96, 1000])
def test_tiles_leave_no_seams(predictor, photo, whole, tile):
    check_seamless(TiledImage(photo, predictor, tile=tile, workers=2).labels(), whole, tile)


@pytest.mark.parametrize(
    "options",
    [
        {"normalization": "before"},
        {"normalization": "after", "self_term": False},
        {"quality": "accurate"},
        {"compatibility": "full", "num_classes": 3},
    ],
)
def test_other_crfs_leave_no_seams_either(model, photo, options):
    parameters = ndc.CRFParameters(theta_gamma=(1, 2), w_bilateral=4, theta_alpha=(33, 40))
    crf = ndc.DenseCRF(parameters, iterations=3, **options)
    other = Predictor(
        ndc.DeepCRF(model.network, crf, model.class_names, name="other").eval(), device="cpu"
    )
    labels = TiledImage(photo, other, tile=176, workers=1).labels()
    check_seamless(labels, other.segment(photo).labels, 176)


def test_a_thin_surrounding_is_used_where_kernels_are_wide(predictor, photo):
    crf = ndc.DenseCRF(ndc.CRFParameters(theta_gamma=1.5, w_bilateral=4, theta_alpha=40))
    work = TiledImage(photo, predictor, crf=crf, tile=176, workers=1)
    assert work.surroundings.step == 4
    with torch.inference_mode():
        tensor = torch.from_numpy(photo).permute(2, 0, 1)[None].float()
        whole = crf(predictor.model.unary(tensor), tensor)[0].max(0).indices.numpy()
    check_seamless(work.labels(), whole, 176)


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("d", [2, 5])
def test_a_phase_moves_features_by_a_whole_lattice_translation(passes, d):
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(50, d, generator=generator, dtype=torch.float64)
    shift = 1e6 * torch.rand(d, generator=generator, dtype=torch.float64)
    phase = lattice_phase(shift, passes=passes)
    assert phase.abs().max() < 4
    far, near = (
        Lattice.build(features + move, passes=passes, backend="torch") for move in (shift, phase)
    )
    torch.testing.assert_close(far.weight, near.weight, atol=1e-6, rtol=0)
    assert far.num_vertices == near.num_vertices


def test_labels_are_written_as_ome_zarr_with_every_resolution(predictor, photo, tmp_path):
    plans, told = [], []
    out = segment_large(
        da.from_array(photo, chunks=50),
        predictor,
        tmp_path / "labels.ome.zarr",
        tile=128,
        on_progress=lambda *progress: told.append(progress),
        on_plan=plans.append,
    )
    group = zarr.open_group(out, mode="r")
    expected = TiledImage(photo, predictor, tile=128).labels()
    np.testing.assert_array_equal(group["0"][:], expected)
    np.testing.assert_array_equal(group["1"][:], expected[::2, ::2])
    assert group["0"].chunks == (128, 128)
    ome = group.attrs["ome"]
    assert ome["version"] == "0.5"
    datasets = ome["multiscales"][0]["datasets"]
    assert [d["path"] for d in datasets] == ["0", "1"]
    scales = [d["coordinateTransformations"][0]["scale"] for d in datasets]
    assert scales == [[1, 1], [2, 2]]
    names = [p["class"] for p in ome["image-label"]["properties"]]
    assert names == list(predictor.class_names)
    assert "tiles of 128×128 pixels" in str(plans[0])
    assert told[0] == (0, 6)
    assert told[-1][0] == told[-1][1] == 7
    assert told == sorted(told)


class _Stopped(Exception):  # noqa: N818
    pass


def _stop_after(tiles: int):
    """Progress that stops the run once so many of its tiles are done."""

    def report(done: int, total: int) -> None:
        if total > 6 and done >= tiles + 1:
            raise _Stopped

    return report


def test_a_cancelled_run_goes_on_from_its_finished_tiles(predictor, photo, tmp_path, monkeypatch):
    out = tmp_path / "labels.ome.zarr"
    with pytest.raises(_Stopped):
        segment_large(photo, predictor, out, tile=128, workers=1, on_progress=_stop_after(2))
    record = tmp_path / "labels.ome.zarr.run"
    finished = (record / "tiles.txt").read_text().split()
    assert 2 <= len(finished) < 6
    kept = {
        path: path.stat().st_mtime_ns for path in (out / "0" / "c").rglob("*") if path.is_file()
    }
    # A crash may cut the last line short, and leave a file that zarr was writing.
    with (record / "tiles.txt").open("a") as stream:
        stream.write("5")

    told = []
    monkeypatch.setattr(TiledImage, "scores", None)  # those of the first run are used
    segment_large(photo, predictor, out, on_progress=lambda *p: told.append(p))
    assert told[0] == (len(finished), 6)
    assert told[-1] == (6, 6)
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    monkeypatch.undo()
    expected = TiledImage(photo, predictor, tile=128).labels()
    np.testing.assert_array_equal(zarr.open_group(out, mode="r")["0"][:], expected)
    identity = json.loads((record / "run.json").read_text())
    assert identity["model"] == "colours"
    assert identity["tile"] == 128
    assert identity["crf"]["parameters"]["w_bilateral"] == pytest.approx(8)
    assert not (record / "scores.npz").exists()
    # Once more: all is done.
    segment_large(photo, predictor, out, on_progress=lambda *p: told.append(p))
    assert told[-1] == (6, 6)


def test_nothing_that_is_there_is_overwritten(predictor, photo, tmp_path):
    out = tmp_path / "labels.ome.zarr"
    out.mkdir()
    with pytest.raises(FileExistsError, match="is there already and is no run of this kind"):
        segment_large(photo, predictor, out)
    out.rmdir()
    segment_large(photo, predictor, out, tile=256)
    for changed, name in (
        ({"image": photo[::-1]}, "image"),
        ({"tile": 128}, "tile"),
        ({"view": 100}, "view"),
        ({"crf": ndc.DenseCRF(iterations=1)}, "crf"),
    ):
        with pytest.raises(FileExistsError, match=f"is a run with another {name}"):
            segment_large(**{"image": photo, "model": predictor, "out": out, **changed})


def test_a_folder_of_the_records_name_keeps_what_it_holds(predictor, photo, tmp_path):
    notes = tmp_path / "labels.ome.zarr.run" / "notes.txt"
    notes.parent.mkdir()
    notes.write_text("mine")
    out = segment_large(photo, predictor, tmp_path / "labels.ome.zarr", tile=256)
    shutil.rmtree(out)  # the next run starts anew
    segment_large(photo, predictor, out, tile=128)
    assert notes.read_text() == "mine"
    assert json.loads((notes.parent / "run.json").read_text())["tile"] == 128


def test_a_full_disk_keeps_the_finished_tiles(predictor, photo, tmp_path, monkeypatch):
    from zarr.storage import _local

    put, room = _local._put, [3]

    def full(path, *args, **kwargs):
        if "/c/" in path.as_posix():
            room[0] -= 1
            if room[0] < 0:
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return put(path, *args, **kwargs)

    out = tmp_path / "labels.ome.zarr"
    monkeypatch.setattr(_local, "_put", full)
    with pytest.raises(OSError, match="No space left on device"):
        segment_large(photo, predictor, out, tile=128, workers=1)
    monkeypatch.undo()
    assert len((tmp_path / "labels.ome.zarr.run" / "tiles.txt").read_text().split()) == 1
    segment_large(photo, predictor, out)
    assert len((tmp_path / "labels.ome.zarr.run" / "tiles.txt").read_text().split()) == 6


def test_an_output_that_cannot_be_written_is_an_os_error(predictor, photo, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        segment_large(photo, predictor, tmp_path / "file" / "labels.ome.zarr")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"view": 3}, "view: expected at least 8 pixels, got 3"),
        ({"tile": 0}, "tile: expected at least one pixel, got 0"),
        ({"memory": 1000}, r"memory: expected at least .* GB for tiles of 256×256"),
        ({"crf": ndc.DenseCRF(quality="exact")}, "quality: expected fast or accurate"),
        ({"crf": ndc.DenseCRF(inference="convergent")}, "inference: expected parallel"),
        ({"crf": ndc.DenseCRF(normalization="none")}, "normalization: expected symmetric or"),
    ],
)
def test_what_cannot_be_done_in_tiles_is_refused_at_once(predictor, photo, options, message):
    with pytest.raises(ValueError, match=message):
        TiledImage(photo, predictor, **options)


def test_plans_keep_within_the_limit(predictor):
    image = da.zeros((3000, 3000, 3), chunks=500, dtype=np.uint8)
    free = TiledImage(image, predictor, memory=memory.resident() + 8 * 10**9, workers=2)
    assert (free.plan.tile, free.plan.workers) == (1536, 2)
    tight = TiledImage(image, predictor, memory=memory.resident() + 10**9)
    assert tight.plan.needed <= 10**9
    small = TiledImage(image, predictor, memory=memory.resident() + 450 * 10**6)
    assert small.plan.tile < 1536
    assert small.plan.needed <= 450 * 10**6


@pytest.mark.parametrize(
    ("text", "size"), [("2GB", 2 * 10**9), ("1.5 GiB", 3 * 2**29), ("800mb", 8 * 10**8)]
)
def test_memory_sizes_are_read(text, size):
    assert memory.parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "much", "-2GB", "0", "2 parsecs"])
def test_other_sizes_are_refused(text):
    with pytest.raises(ValueError, match="memory: expected a"):
        memory.parse_memory(text)


def test_an_image_beyond_the_limit_is_labelled_in_tiles(predictor, photo, whole, monkeypatch):
    np.testing.assert_array_equal(predictor.labels(photo), whole)
    asked = []
    monkeypatch.setattr(TiledImage, "labels", lambda self: asked.append(self.plan) or whole)
    monkeypatch.setattr(memory, "fits", lambda *args, **kwargs: False)
    np.testing.assert_array_equal(predictor.labels(photo), whole)
    assert len(asked) == 1
    for small in (np.zeros(20), np.zeros((4, 4))):
        with pytest.raises(ValueError, match="image: expected"):
            predictor.labels(small)
