"""What the GPU benchmark runs: inputs, this package's two backends, and the peers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from napari_deepcrf.crf import CRFParameters, DenseCRF
from napari_deepcrf.lattice import Lattice, filter_on

LABELS, UPDATES = 21, 5
FILTER_POINTS, FILTER_DIM, FILTER_CHANNELS = 196_608, 6, 3
BACKENDS = {"Triton": "triton", "plain PyTorch": "torch"}

Contender = Callable[[], object]


def photo(height: int, width: int, device: str) -> Tensor:
    """(1, 3, H, W), 0-255: a photograph, for its lattice is unlike that of noise."""
    from skimage import data

    pixels = torch.from_numpy(data.astronaut().copy()).permute(2, 0, 1)[None].float()
    resized = torch.nn.functional.interpolate(pixels, (height, width), mode="bilinear")
    return resized.round().to(device)


def scores(height: int, width: int, device: str) -> Tensor:
    """(1, L, H, W): smooth, as those of a network of stride 8."""
    generator = torch.Generator().manual_seed(0)
    coarse = 3 * torch.randn(1, LABELS, height // 8, width // 8, generator=generator)
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear").to(device)


def cloud(device: str) -> tuple[Tensor, Tensor]:
    """Features (N, 6), uniform in a cube of four widths, and values (N, 3)."""
    generator = torch.Generator().manual_seed(0)
    features = 4 * torch.rand(FILTER_POINTS, FILTER_DIM, generator=generator)
    values = torch.rand(FILTER_POINTS, FILTER_CHANNELS, generator=generator)
    return features.to(device), values.to(device)


def crf_on(device: str, backend: str = "auto") -> DenseCRF:
    return DenseCRF(CRFParameters(), iterations=UPDATES, backend=backend).to(device)


def photo_works(
    height: int, width: int, missing: dict[str, str]
) -> dict[str, dict[str, Contender]]:
    """Works on a photo, each with its contenders; ``missing`` learns which peers are not there."""
    image, given = photo(height, width, "cuda"), scores(height, width, "cuda")
    whole, updates, training = (
        f"lattices + {UPDATES} updates",
        f"{UPDATES} updates",
        "with gradients",
    )
    works: dict[str, dict[str, Contender]] = {whole: {}, updates: {}, training: {}}
    for who, backend in BACKENDS.items():
        crf = crf_on("cuda", backend)
        prepared = crf.prepare(image)

        def infer(crf: DenseCRF = crf) -> None:
            with torch.inference_mode():
                crf(given, image)

        def update(crf: DenseCRF = crf, prepared: object = prepared) -> None:
            with torch.inference_mode():
                crf(given, image, prepared=prepared)

        def learn(crf: DenseCRF = crf) -> None:
            leaf = given.clone().requires_grad_()
            crf(leaf, image)[:, 0].log().mean().backward()

        works[whole][who], works[updates][who], works[training][who] = infer, update, learn
    monai = monai_crf(missing)
    if monai is not None:

        def infer_monai() -> None:
            with torch.inference_mode():
                monai(given, image)

        works[whole]["MONAI"] = infer_monai
    return works


def filter_works(missing: dict[str, str]) -> dict[str, Contender]:
    """One normalised filter of a cloud of points, lattice included."""
    features, values = cloud("cuda")
    ones = torch.cat([values, torch.ones_like(values[:, :1])], 1)
    works: dict[str, Contender] = {}
    for who, backend in BACKENDS.items():

        def run(backend: str = backend) -> Tensor:
            with torch.inference_mode():
                filtered = filter_on(Lattice.build(features, backend=backend), ones)
                return filtered[:, :-1] / filtered[:, -1:]

        works[who] = run
    try:
        from warpconvnet.nn.functional.permutohedral import permutohedral_filter
    except ImportError as error:
        missing["WarpConvNet"] = str(error)
    else:

        def run_peer() -> object:
            with torch.inference_mode():
                return permutohedral_filter(positions=features, features=values, sigma=1.0)

        works["WarpConvNet"] = run_peer
    return works


def monai_crf(missing: dict[str, str]) -> Callable[[Tensor, Tensor], object] | None:
    """MONAI's CRF with the same kernels, if it and its CUDA extension are there.

    It rebuilds both lattices in every update and normalises otherwise: its time is compared,
    not its result.
    """
    try:
        from monai.networks.blocks import CRF

        own = CRFParameters()
        crf = CRF(
            iterations=UPDATES,
            bilateral_weight=own.w_bilateral,
            gaussian_weight=own.w_spatial,
            bilateral_spatial_sigma=own.theta_alpha,
            bilateral_color_sigma=own.theta_beta,
            gaussian_spatial_sigma=own.theta_gamma,
        ).cuda()
        crf(torch.zeros(1, 2, 9, 9).cuda(), torch.zeros(1, 3, 9, 9).cuda())
    except Exception as error:  # whatever a peer's missing extension raises is its reason
        missing["MONAI"] = f"{type(error).__name__}: {error}".partition("\n")[0]
        return None
    return lambda given, image: crf(given, image)
