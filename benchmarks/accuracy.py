"""How close each quality's marginals and width derivatives are to the exact ones, on photos.

Exact means every pair of pixels, in float64. Crops of scikit-image's photos, 21 classes with smooth
random scores, five updates: everything comes from fixed seeds, and pydensecrf runs beside it where
it is installed.

    python benchmarks/accuracy.py            # the tables of docs/accuracy.md, some minutes
    python benchmarks/accuracy.py --quick    # two photos
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage import data

from napari_deepcrf import CRFParameters, DenseCRF

HEIGHT, WIDTH, LABELS = 48, 64, 21
PHOTOS = {
    "astronaut": (40, 200),
    "chelsea": (60, 100),
    "coffee": (100, 200),
    "rocket": (250, 200),
    "immunohistochemistry": (100, 100),
}
WIDTHS = [(80.0, 13.0), (20.0, 13.0), (40.0, 25.0)]
"""θ_α in pixels, θ_β in grey levels."""


@dataclass(frozen=True)
class Problem:
    """One crop with its scores, and the parameters to run it with."""

    image: torch.Tensor
    """(1, 3, H, W)."""
    scores: torch.Tensor
    """(1, L, H, W)."""
    params: CRFParameters


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two photos only")
    photos = list(PHOTOS)[: 2 if parser.parse_args().quick else None]
    print("marginals after 5 updates: mean absolute error / label agreement with the exact ones")
    for alpha, beta in WIDTHS:
        print(f"\nθα {alpha:g} px, θβ {beta:g} levels")
        rows = [list(marginal_errors(problem(name, alpha, beta))) for name in photos]
        names = [name for name, *_ in rows[0]]
        for column, name in enumerate(names):
            errors = np.array([row[column][1:] for row in rows])
            each = "  ".join(f"{mean:.5f}/{agree:.4f}" for mean, agree in errors)
            mean, agree = errors.mean(0)
            print(f"  {name:11s} {mean:.5f}/{agree:.4f}   ({each})")
    print("\nderivatives of the loss by the logarithms of all nine parameters")
    print("wrong signs of 9, and largest error over the largest derivative:")
    for name in photos:
        for quality, wrong, error in derivative_errors(problem(name, 20, 20)):
            print(f"  {name:22s} {quality:9s} {wrong}  {error:.3f}")


def problem(name: str, alpha: float, beta: float) -> Problem:
    y, x = PHOTOS[name]
    crop = getattr(data, name)()[y : y + 2 * HEIGHT : 2, x : x + 2 * WIDTH : 2]
    noise = np.random.default_rng(0).standard_normal((LABELS, HEIGHT, WIDTH))
    noise = gaussian_filter(noise, (0, 8, 8))
    return Problem(
        torch.tensor(crop.transpose(2, 0, 1).astype(np.float32))[None],
        torch.tensor((2 * noise / noise.std()).astype(np.float32))[None],
        CRFParameters(theta_alpha=alpha, theta_beta=beta),
    )


def marginal_errors(task: Problem) -> Iterator[tuple[str, float, float]]:
    exact = run(task, "exact")
    for quality in ("fast", "accurate"):
        yield quality, *compare(run(task, quality), exact)
    peer = run_pydensecrf(task)
    if peer is not None:
        yield "pydensecrf", *compare(peer, exact)


def run(task: Problem, quality: str) -> NDArray[np.float64]:
    crf = DenseCRF(task.params, quality=quality)
    if quality == "exact":
        crf = crf.double()
    with torch.no_grad():
        marginals: torch.Tensor = crf(task.scores, task.image)[0]
    return marginals.double().numpy()


def run_pydensecrf(task: Problem) -> NDArray[np.float64] | None:
    try:
        from pydensecrf.densecrf import DenseCRF2D
    except ImportError:
        return None
    p = task.params
    peer = DenseCRF2D(WIDTH, HEIGHT, LABELS)
    peer.setUnaryEnergy(np.ascontiguousarray(-task.scores[0].flatten(1).numpy()))
    peer.addPairwiseGaussian(sxy=p.theta_gamma, compat=p.w_spatial)
    peer.addPairwiseBilateral(
        sxy=p.theta_alpha,
        srgb=p.theta_beta,
        rgbim=np.ascontiguousarray(task.image[0].permute(1, 2, 0).numpy().astype(np.uint8)),
        compat=p.w_bilateral,
    )
    return np.array(peer.inference(5), dtype=np.float64).reshape(LABELS, HEIGHT, WIDTH)


def compare(result: NDArray[np.float64], exact: NDArray[np.float64]) -> tuple[float, float]:
    agreement = (result.argmax(0) == exact.argmax(0)).mean()
    return float(np.abs(result - exact).mean()), float(agreement)


def derivative_errors(task: Problem) -> Iterator[tuple[str, int, float]]:
    """A segmentation of the photo's grey levels from noisy scores, and its loss's derivatives."""
    grey = gaussian_filter(task.image[0].mean(0).numpy(), 1.0)
    labels = np.digitize(grey, np.quantile(grey, [0.25, 0.5, 0.75]))
    noise = np.random.default_rng(0).standard_normal((4, HEIGHT, WIDTH))
    noise = gaussian_filter(noise, (0, 1, 1))
    scores = torch.tensor((labels == np.arange(4)[:, None, None]) + noise / noise.std())[None]
    params = CRFParameters(
        w_spatial=2,
        theta_gamma=(2, 2),
        w_bilateral=5,
        theta_alpha=(20, 20),
        theta_beta=(20, 20, 20),
    )

    def derivatives(quality: str) -> NDArray[np.float64]:
        crf = DenseCRF(params, quality=quality, backend="torch").double()
        marginals = crf(scores, task.image)
        loss = torch.nn.functional.nll_loss(marginals.log(), torch.tensor(labels)[None])
        gradients = torch.autograd.grad(loss, list(crf.parameters()))
        return torch.cat([g.reshape(-1) for g in gradients]).numpy()

    exact = derivatives("exact")
    for quality in ("fast", "accurate"):
        mine = derivatives(quality)
        wrong = int((np.sign(mine) != np.sign(exact)).sum())
        yield quality, wrong, float(np.abs(mine - exact).max() / np.abs(exact).max())


if __name__ == "__main__":
    main()
