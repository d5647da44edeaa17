"""A table of all results in a folder: how many pixels every class covers in each."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from napari_deepcrf.atomic import atomic_write
from napari_deepcrf.batch.records import ResultFolder

NAME = "summary.csv"
COLUMNS = ("labels", "image", "height", "width")


def write_summary(results: ResultFolder) -> Path:
    """Write ``summary.csv``: a row for each result, a column of pixel counts for each class.

    Raises FileExistsError where another table of that name lies there, which stays.
    """
    path = results.folder / NAME
    start = ",".join(COLUMNS)
    if path.exists() and not path.read_bytes().startswith(start.encode()):
        raise FileExistsError(f"{path}: expected no file or an earlier summary, got another")
    rows = list(results.records())
    classes = list(dict.fromkeys(name for _, record in rows for name in record.areas))
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow([*COLUMNS, *classes])
    for result, record in rows:
        areas = [record.areas.get(name, "") for name in classes]
        writer.writerow([result, record.image, *record.size, *areas])
    with atomic_write(path) as stream:
        stream.write(table.getvalue().encode())
    return path
