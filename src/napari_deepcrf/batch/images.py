"""Which files a run reads, and what its results are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from os.path import commonpath
from pathlib import Path

from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
ZARR = ".zarr"


def find_images(paths: Sequence[Path]) -> list[Path]:
    """The given files, and the images of the given folders by name; each once.

    A folder whose name ends in ``.zarr`` is one image.

    Files are taken as they are, so that one that is missing or no image can be reported later.
    Folders are not searched below their first level. Raises ValueError for one without images.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        for image in _images_in(path) if path.is_dir() and not is_zarr(path) else [path]:
            found.setdefault(image.resolve(), image)
    return list(found.values())


def is_zarr(path: Path) -> bool:
    """Whether a path is the folder of a Zarr array or an OME-Zarr image, by its name."""
    return path.name.lower().endswith(ZARR) and path.is_dir()


def _images_in(folder: Path) -> list[Path]:
    images = sorted(
        path
        for path in folder.iterdir()
        if not path.name.startswith(".")
        and (
            (is_zarr(path) and not _holds_labels(path))
            or (path.suffix.lower() in SUFFIXES and path.is_file())
        )
    )
    if not images:
        kinds = ", ".join((*SUFFIXES, ZARR))
        raise ValueError(f"folder: expected images ({kinds}), got none in {folder}")
    return images


def _holds_labels(path: Path) -> bool:
    """Whether a Zarr folder is a label image, such as results beside their images."""
    try:
        return '"image-label"' in (path / "zarr.json").read_text()
    except (OSError, UnicodeDecodeError):
        return False


def largest_size(images: Sequence[Path]) -> tuple[int, int] | None:
    """(H, W) of the image with most pixels, by the files' headers; None where none can be read."""
    sizes = []
    for path in images:
        with suppress(OSError, ValueError, Image.DecompressionBombError), Image.open(path) as image:
            sizes.append((image.height, image.width))
    return max(sizes, key=lambda size: size[0] * size[1], default=None)


def result_names(images: Sequence[Path]) -> list[str]:
    """One name for each image's result, different for all; "/" stands for a folder.

    An image's stem where no other has it. Images that share one are told apart by their folders
    below the folder that all images have in common, and, in the same folder, by their suffixes.
    Upper and lower case count as equal, as they do in some file systems.
    """
    places = [image.resolve() for image in images]

    @cache
    def root() -> Path:
        return Path(commonpath([place.parent for place in places]))

    levels: tuple[Callable[[Path], str], ...] = (
        lambda place: _bare(place).name,
        lambda place: _bare(place).relative_to(root()).as_posix(),
        lambda place: place.relative_to(root()).as_posix(),
    )
    level = [0] * len(places)
    while True:
        names = [levels[n](place) for n, place in zip(level, places, strict=True)]
        count = Counter(name.casefold() for name in names)
        shared = [k for k, name in enumerate(names) if count[name.casefold()] > 1]
        if not shared:
            return names
        if all(level[k] == len(levels) - 1 for k in shared):
            first, second = (images[k] for k in shared[:2])
            raise ValueError(f"{first} and {second}: expected names that differ in more than case")
        for k in shared:
            level[k] = min(level[k] + 1, len(levels) - 1)


def _bare(place: Path) -> Path:
    """A path without its suffix, ``.ome.zarr`` being one."""
    bare = place.with_suffix("")
    return bare.with_suffix("") if is_zarr(place) and bare.suffix.lower() == ".ome" else bare
