"""Which files a run takes, and names of results that never meet."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_deepcrf.batch.images import find_images, result_names


def test_folders_give_their_images_by_name_and_files_stay(tmp_path: Path):
    folder = tmp_path / "photos"
    (folder / "deeper").mkdir(parents=True)
    for name in ("b.JPG", "a.png", "notes.txt", ".hidden.png", "deeper/c.png"):
        (folder / name).touch()
    missing = tmp_path / "missing.xyz"
    twice = folder / "deeper" / ".." / "a.png"
    assert find_images([missing, folder, twice]) == [missing, folder / "a.png", folder / "b.JPG"]


def test_a_folder_without_images_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"^folder: expected images .* got none in "):
        find_images([tmp_path])


def test_images_that_share_a_stem_are_told_apart():
    names = ["one.png", "a/x.png", "b/x.png", "b/y.png", "b/y.jpg", "c/y.jpg.png"]
    assert result_names([Path("/data") / name for name in names]) == [
        "one",
        "a/x",
        "b/x",
        "b/y.png",
        "b/y.jpg",
        "y.jpg",
    ]


def test_case_does_not_tell_apart():
    assert result_names([Path("/d/a/Photo.png"), Path("/d/b/photo.png")]) == ["a/Photo", "b/photo"]
    with pytest.raises(ValueError, match="differ in more than case"):
        result_names([Path("/d/Photo.png"), Path("/d/photo.png")])


part = st.sampled_from(["a", "b", "a.png", "b.png", "a.png.png"])


@given(st.sets(st.tuples(st.lists(part, max_size=2), part).map(lambda p: "/".join([*p[0], p[1]]))))
def test_names_always_differ(names: set[str]):
    # A path that is a folder of another cannot be a file.
    images = [Path("/d") / n for n in names if not any(m.startswith(f"{n}/") for m in names)]
    found = result_names(images)
    assert len(set(found)) == len(images)
