"""Reduced copies: sizes, the cache, and every bad sample listed before training."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from napari_deepcrf.data.copies import ReducedCopies
from napari_deepcrf.data.samples import VOID, DatasetError, Sample


class Listed:
    """A dataset of files, as far as copies care."""

    class_names = ("background", "thing")

    def __init__(self, *samples, files=()):
        self.samples = samples
        self.files = files
        self.reads = 0

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        self.reads += 1
        if self.samples[index].name == "broken":
            raise ValueError("broken: unreadable image or labels (truncated)")
        return self.samples[index]


def sample(name="one", shape=(30, 61), label=1):
    image = np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8)
    labels = np.zeros(shape, np.uint8)
    labels[4:12, 5:25] = label
    return Sample(name, image, labels)


def test_the_longer_side_is_reduced_and_never_enlarged():
    copies = ReducedCopies(
        Listed(sample(), sample("tall", (90, 17)), sample("small", (13, 26))), 40
    )
    assert [copy.labels.shape for copy in copies] == [(20, 40), (40, 8), (13, 26)]
    assert copies[0].image.shape == (20, 40, 3)
    assert set(np.unique(copies[0].labels)) == {0, 1}


def test_no_size_keeps_the_original():
    one = sample()
    copies = ReducedCopies(Listed(one), None)
    assert (copies[0].image == one.image).all()


def test_the_cache_gives_the_same_copies_without_reading(tmp_path):
    dataset = Listed(sample(), sample("two", (33, 20)))
    first = ReducedCopies(dataset, 25, cache=tmp_path)
    assert dataset.reads == 2
    second = ReducedCopies(dataset, 25, cache=tmp_path)
    assert dataset.reads == 2
    for one, other in zip(first, second, strict=True):
        assert one.name == other.name
        assert (one.image == other.image).all()
        assert (one.labels == other.labels).all()
    ReducedCopies(dataset, 20, cache=tmp_path)
    assert dataset.reads == 4


def test_a_file_that_was_mended_is_read_anew(tmp_path):
    path = tmp_path / "labels.png"
    path.write_bytes(b"wrong")
    dataset = Listed(sample(), files=(path,))
    ReducedCopies(dataset, 25, cache=tmp_path / "cache")
    path.write_bytes(b"mended")
    ReducedCopies(dataset, 25, cache=tmp_path / "cache")
    assert dataset.reads == 2


def test_all_problems_are_listed_at_once():
    unequal = Sample("unequal", sample().image[:-1], sample().labels)
    empty = Sample("empty", sample().image, np.full((30, 61), VOID, np.uint8))
    bad = Listed(sample("wrong", label=7), unequal, empty, sample("broken"), sample("fine"))
    with pytest.raises(DatasetError) as caught:
        ReducedCopies(bad, 40)
    problems = caught.value.problems
    assert [problem.split(":")[0] for problem in problems] == [
        "wrong",
        "unequal",
        "empty",
        "broken",
    ]
    assert "label 7 is out of range, expected 0 to 1 or 255" in problems[0]
    assert "image is 61×29 but labels are 61×30" in problems[1]


def test_a_long_message_counts_what_it_leaves_out():
    problems = [f"problem {n}" for n in range(342)]
    error = DatasetError("here", problems)
    assert str(error) == f"here: 342 problems: {'; '.join(problems[:30])}; and 312 more"
    assert error.problems == tuple(problems)
    short = DatasetError("here", problems[:30])
    assert str(short) == "here: 30 problems: " + "; ".join(problems[:30])


def test_samples_of_original_size_are_read_when_asked_for():
    dataset = Listed(sample(), sample("two"))
    copies = ReducedCopies(dataset, None)
    assert dataset.reads == 2
    assert copies[1].name == "two"
    assert dataset.reads == 3


def test_samples_of_original_size_are_checked_once(tmp_path):
    path = tmp_path / "labels.png"
    path.write_bytes(b"fine")
    dataset = Listed(sample(), files=(path,))
    ReducedCopies(dataset, None, cache=tmp_path / "cache")
    copies = ReducedCopies(dataset, None, cache=tmp_path / "cache")
    assert dataset.reads == 1
    assert len(copies) == 1
    assert (copies[0].image == sample().image).all()


def test_a_class_that_must_occur_and_does_not_is_named():
    dataset = Listed(sample(), sample("unequal", shape=(30, 61)))
    dataset.class_names = ("background", "thing", "other")
    ReducedCopies(dataset, 40)
    dataset.required_classes = dataset.class_names
    with pytest.raises(DatasetError, match=r"no pixel is labelled 'other' \(label 3\)"):
        ReducedCopies(dataset, 40)


def test_two_that_fill_one_cache_at_once_leave_it_whole(tmp_path):
    meeting = threading.Barrier(2)

    class Meeting(Listed):
        def __getitem__(self, index):
            if index == 1:
                meeting.wait(timeout=60)  # neither found copies, both write them
            return super().__getitem__(index)

    samples = sample(), sample("two", (33, 20))
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(ReducedCopies, Meeting(*samples), 25, cache=tmp_path) for _ in "ab"]
        both = [job.result(timeout=60) for job in jobs]
    (kept,) = tmp_path.iterdir()
    assert kept.suffix == ".npz"
    reader = Listed(*samples)
    third = ReducedCopies(reader, 25, cache=tmp_path)
    assert reader.reads == 0
    for copies in both:
        for one, other in zip(copies, third, strict=True):
            np.testing.assert_array_equal(one.image, other.image)
