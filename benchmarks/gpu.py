"""Time lattices and mean fields on a CUDA GPU, beside the peers that are installed.

    python benchmarks/gpu.py --out DIR     measures; writes DIR/gpu.json and DIR/gpu.md
    python benchmarks/gpu.py --estimate    counts bytes from lattices built on the CPU

Results are compared with the CPU's before anything is timed. Times are medians between CUDA
events, all contenders taking turns. Peers: this package's plain PyTorch operations; MONAI's CRF,
built with its CUDA extension; WarpConvNet's permutohedral filter. Exit code 2 without a GPU.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from gpu_bytes import Counts, backward_bytes, build_bytes, filter_bytes, update_bytes
from gpu_cases import (
    FILTER_CHANNELS,
    FILTER_DIM,
    FILTER_POINTS,
    LABELS,
    UPDATES,
    Contender,
    cloud,
    crf_on,
    filter_works,
    photo,
    photo_works,
    scores,
)
from napari_deepcrf.crf.prepared import PreparedLattice
from napari_deepcrf.lattice import Lattice
from report import publish

PHOTOS = [(375, 500), (1024, 1024)]
PADDED_LABELS = 24
WARM_UP, REPEATS = 3, 30
AGREEMENT, MEAN_DIFFERENCE = 0.9999, 1e-5


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    case: str
    work: str
    who: str
    milliseconds: float
    counted_megabytes: float
    share_of_copy_bandwidth: float


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(), help="folder for gpu.json and gpu.md")
    parser.add_argument("--estimate", action="store_true", help="count bytes, measure nothing")
    arguments = parser.parse_args()
    if arguments.estimate:
        print("\n".join(estimate()))
        return 0
    if not torch.cuda.is_available():
        print("No CUDA GPU here: nothing was measured (--estimate counts bytes).", file=sys.stderr)
        return 2
    if not all(agrees(height, width) for height, width in PHOTOS):
        print("The GPU's result is wrong: nothing was timed.", file=sys.stderr)
        return 1
    missing: dict[str, str] = {}
    bandwidth = copy_bandwidth()
    rows = list(measure(bandwidth, missing))
    device = torch.cuda.get_device_name()
    report = {
        "device": device,
        "torch": torch.__version__,
        "copy_bandwidth_gb_per_s": bandwidth / 1e9,
        "rows": [asdict(row) for row in rows],
        "not_measured": missing,
    }
    table = "\n".join(markdown(device, bandwidth, rows, missing)) + "\n"
    publish(arguments.out, "gpu", report, table)
    return 0


@torch.no_grad()
def agrees(height: int, width: int) -> bool:
    """Whether the GPU's marginals are the CPU's: run directly, captured and replayed."""
    expected = crf_on("cpu")(scores(height, width, "cpu"), photo(height, width, "cpu"))
    crf, image = crf_on("cuda"), photo(height, width, "cuda")
    for _ in range(3):
        found = crf(scores(height, width, "cuda"), image).cpu()
        agreement = float((found.argmax(1) == expected.argmax(1)).float().mean())
        difference = float((found - expected).abs().mean())
        print(f"{width}×{height}: {agreement:.5f} labels agree, mean difference {difference:.1e}")
        if agreement < AGREEMENT or not difference <= MEAN_DIFFERENCE:
            return False
    return True


def measure(bandwidth: float, missing: dict[str, str]) -> Iterator[Row]:
    for height, width in PHOTOS:
        counted = photo_bytes(height, width, "cuda")
        for work, contenders in photo_works(height, width, missing).items():
            case = f"{width}×{height}, {LABELS} labels"
            yield from to_rows(case, work, contenders, counted[work], bandwidth)
    case = f"{FILTER_POINTS} points, d = {FILTER_DIM}, {FILTER_CHANNELS} channels"
    yield from to_rows(
        case, "lattice + filter", filter_works(missing), cloud_bytes("cuda"), bandwidth
    )


def to_rows(
    case: str, work: str, contenders: dict[str, Contender], counted: int, bandwidth: float
) -> Iterator[Row]:
    for who, milliseconds in medians(contenders).items():
        share = counted / bandwidth / (milliseconds / 1e3)
        yield Row(case, work, who, milliseconds, counted / 1e6, share)


def medians(contenders: dict[str, Contender]) -> dict[str, float]:
    """Milliseconds of each between CUDA events, all taking turns."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(WARM_UP + REPEATS):
        for name, work in contenders.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            torch.cuda.synchronize()
            start.record()
            work()
            end.record()
            torch.cuda.synchronize()
            if turn >= WARM_UP:
                times[name].append(start.elapsed_time(end))
    return {name: statistics.median(values) for name, values in times.items()}


def copy_bandwidth() -> float:
    """Bytes per second, read and written, of a copy far larger than the caches."""
    source = torch.rand(2**28, device="cuda")
    target = torch.empty_like(source)
    milliseconds = medians({"copy": lambda: target.copy_(source)})["copy"]
    return 2 * source.numel() * source.element_size() / (milliseconds / 1e3)


def photo_bytes(height: int, width: int, device: str) -> dict[str, int]:
    """Counted bytes of every work on a photo."""
    kernels = crf_on(device).prepare(photo(height, width, device)).kernels
    lattices = [kernel.lattice for kernel in kernels if isinstance(kernel, PreparedLattice)]
    counts = Counts.of(lattices)
    build = sum(build_bytes(Counts.of([lattice]), lattice.dim) for lattice in lattices)
    updates = UPDATES * update_bytes(counts, PADDED_LABELS)
    backward = UPDATES * backward_bytes(counts, PADDED_LABELS)
    return {
        f"lattices + {UPDATES} updates": build + updates,
        f"{UPDATES} updates": updates,
        "with gradients": build + updates + backward,
    }


def cloud_bytes(device: str) -> int:
    """Counted bytes of building and filtering the cloud of points, ones included."""
    lattice = Lattice.build(cloud(device)[0])
    counts = Counts.of([lattice])
    return build_bytes(counts, lattice.dim) + filter_bytes(counts, FILTER_CHANNELS + 1)


def estimate() -> Iterator[str]:
    """A table of counted bytes; no time in it was measured."""
    yield "Counted from lattices built on the CPU; nothing here was measured on a GPU."
    yield ""
    yield "| case | work | MB | at 1,000 GB/s not below |"
    yield "|---|---|---|---|"
    for height, width in PHOTOS:
        for work, counted in photo_bytes(height, width, "cpu").items():
            yield estimate_line(f"{width}×{height}, {LABELS} labels", work, counted)
    case = f"{FILTER_POINTS} points, d = {FILTER_DIM}, {FILTER_CHANNELS} channels"
    yield estimate_line(case, "lattice + filter", cloud_bytes("cpu"))


def estimate_line(case: str, work: str, counted: int) -> str:
    return f"| {case} | {work} | {counted / 1e6:.0f} | {counted / 1e9:.2f} ms |"


def markdown(
    device: str, bandwidth: float, rows: list[Row], missing: dict[str, str]
) -> Iterator[str]:
    yield f"{device}; a copy runs at {bandwidth / 1e9:.0f} GB/s. Medians of {REPEATS}."
    yield ""
    yield "| case | work | by | ms | × Triton's | counted MB | of copy bandwidth |"
    yield "|---|---|---|---|---|---|---|"
    own = {(row.case, row.work): row for row in rows if row.who == "Triton"}
    for row in rows:
        factor = row.milliseconds / own[row.case, row.work].milliseconds
        share = " | "
        if row.who == "Triton":
            share = f"{row.counted_megabytes:.0f} | {row.share_of_copy_bandwidth:.0%}"
        cells = f"{row.who} | {row.milliseconds:.3f} | {factor:.1f} | {share}"
        yield f"| {row.case} | {row.work} | {cells} |"
    for who, reason in missing.items():
        yield f"\n{who} was not measured: {reason}."


if __name__ == "__main__":
    sys.exit(main())
