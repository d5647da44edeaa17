import numpy as np
import pytest

from napari_deepcrf.session.annotations import (
    AnnotationClass,
    ClassList,
    ScribbleStore,
    content_key,
)

RED, BLUE = (200, 0, 0), (0, 0, 200)
CLASSES = (AnnotationClass("a", RED), AnnotationClass("b", BLUE))


def no_colour(_name, _index):
    raise AssertionError("the file has colours")


@pytest.fixture
def classes():
    return ClassList([AnnotationClass("background", (0, 0, 0)), AnnotationClass("cat", RED)])


def test_every_edit_is_announced_once(classes):
    seen = []
    classes.changed.connect(lambda: seen.append(classes.names))
    index = classes.add("dog", BLUE)
    classes.edit(index, name="hound")
    classes.edit(index, name="hound")
    assert seen == [("background", "cat", "dog"), ("background", "cat", "hound")]
    assert classes.colours[2] == BLUE


def test_names_stay_unique_and_are_not_empty(classes):
    with pytest.raises(ValueError, match="twice"):
        classes.add("cat", BLUE)
    with pytest.raises(ValueError, match="twice"):
        classes.edit(0, name="cat")
    with pytest.raises(ValueError, match="empty"):
        classes.edit(0, name=" ")
    assert classes.names == ("background", "cat")


def test_scribbles_come_back(tmp_path):
    store = ScribbleStore(tmp_path / "new")
    scribbles = np.random.default_rng(0).integers(0, 3, (31, 17), dtype=np.uint8)
    store.save("key", scribbles, CLASSES)
    loaded = store.load("key", no_colour)
    np.testing.assert_array_equal(loaded.scribbles, scribbles)
    assert loaded.classes == CLASSES
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["key.npz"]
    store.discard("key")
    assert store.load("key", no_colour) is None


def test_files_without_colours_are_still_read(tmp_path):
    np.savez_compressed(tmp_path / "key.npz", scribbles=np.eye(5), classes='["cat", "dog"]')
    loaded = ScribbleStore(tmp_path).load("key", lambda name, index: (index, len(name), 0))
    np.testing.assert_array_equal(loaded.scribbles, np.eye(5))
    assert [(c.name, c.colour) for c in loaded.classes] == [("cat", (0, 3, 0)), ("dog", (1, 3, 0))]


def test_a_damaged_file_counts_as_none(tmp_path):
    store = ScribbleStore(tmp_path)
    store.save("key", np.ones((9, 9), np.uint8), CLASSES)
    path = tmp_path / "key.npz"
    for content in (path.read_bytes()[:50], b"", b"no zip file"):
        path.write_bytes(content)
        assert store.load("key", no_colour) is None
    for colours in (np.ones((1, 3)), np.ones((2, 4)), np.array(["a", "b"])):
        np.savez(path, scribbles=np.ones((9, 9)), classes='["a", "b"]', colours=colours)
        assert store.load("key", no_colour) is None


def test_content_keys_follow_the_pixels():
    image = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    other = image.copy()
    other[0, 0, 0] ^= 1
    assert content_key(image) == content_key(image.copy())
    assert len({content_key(image), content_key(other), content_key(image.astype(float))}) == 3
