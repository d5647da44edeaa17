"""ScribbleSup's stroke files."""

import numpy as np
import pytest

from napari_deepcrf.data.samples import VOID
from napari_deepcrf.data.scribbles import read_strokes


def test_strokes_become_labels(tmp_path):
    path = tmp_path / "strokes.txt"
    path.write_text("0,2,5,20,5\n\n12,10,15,10,25,14,25\n3,40,40\n")
    labels = read_strokes(path, (31, 25), num_classes=21, width=3)
    assert labels.shape == (31, 25)
    assert labels.dtype == np.uint8
    assert set(np.unique(labels)) == {0, 12, VOID}  # the last stroke lies outside
    assert (labels[4:7, 5:18] == 0).all()
    assert labels[20, 10] == 12
    assert labels[25, 12] == 12
    assert (labels == VOID).mean() > 0.8


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("21,1,1,2,2", r"line 2: class 21 is out of range, expected 0 to 20"),
        ("4,1,1,2", "line 2: expected pairs of coordinates, got 3 numbers"),
        ("4,one,1", "line 2: expected numbers"),
    ],
)
def test_bad_lines_are_named(tmp_path, line, message):
    path = tmp_path / "strokes.txt"
    path.write_text(f"0,1,1,5,5\n{line}\n")
    with pytest.raises(ValueError, match=message):
        read_strokes(path, (20, 20), num_classes=21)
