"""Draws the figures of docs/mathematics.md: ``python docs/figures/mathematics.py [FOLDER]``.

The lattice in two dimensions with one point in its simplex; the filter's answer to an impulse
beside the Gaussian; a loss over one width, with the slopes that back-propagation gives.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.tri import Triangulation
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage import data

from napari_deepcrf import CRFParameters, DenseCRF, permutohedral_filter
from napari_deepcrf.lattice.embedding import elevate

# An orthonormal basis of the plane of coordinates that sum to zero.
PLANE = np.array([[1, -1, 0], [1, 1, -2]]) / np.sqrt([[2], [6]])
SIDE, WIDTH = 61, 7.0
QUALITIES = ("fast", "accurate", "exact")


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in (("lattice", lattice), ("impulse", impulse), ("gradients", gradients)):
        figure = draw()
        figure.savefig(folder / f"{name}.png", dpi=110)
        plt.close(figure)


def lattice() -> Figure:
    """Points of the plane in their simplices, and one point's weights on its three vertices."""
    generator = np.random.default_rng(1)
    points = generator.uniform(-1.6, 1.6, (60, 2))
    points[0] = (0.45, 0.2)
    elevated = elevate(torch.from_numpy(points)).numpy()
    reach = range(-12, 13)
    vertices = np.array(
        [(a, b, -a - b) for a in reach for b in reach if a % 3 == b % 3 == (-a - b) % 3]
    )
    flat, dots = vertices @ PLANE.T, elevated @ PLANE.T
    figure, axis = plt.subplots(figsize=(6.4, 5), layout="constrained")
    triangles = Triangulation(flat[:, 0], flat[:, 1])
    axis.triplot(triangles, color="0.75", linewidth=0.8)
    colours = plt.get_cmap("Set2")(vertices[:, 0] % 3)
    axis.scatter(*flat.T, c=colours, s=46, zorder=3)
    axis.scatter(*dots[1:].T, color="0.35", s=8, zorder=3)
    corners = triangles.triangles[int(triangles.get_trifinder()(*dots[0]))]
    for corner, weight in zip(corners, barycentric(flat[corners], dots[0]), strict=True):
        axis.plot(*zip(dots[0], flat[corner], strict=True), color="C3", linewidth=1 + 4 * weight)
        away = 26 * (flat[corner] - dots[0]) / np.linalg.norm(flat[corner] - dots[0])
        axis.annotate(
            f"b = {weight:.2f}",
            flat[corner],
            xytext=away,
            textcoords="offset points",
            ha="center",
            va="center",
            color="C3",
        )
    axis.scatter(*dots[0], color="C3", s=40, zorder=4)
    axis.set(xlim=(-6.3, 6.3), ylim=(-5.2, 5.2), aspect="equal")
    axis.set_axis_off()
    return figure


def barycentric(corners: NDArray[np.float64], point: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights of a point on the three corners of its triangle."""
    system = np.vstack([corners.T, np.ones(3)])
    return np.linalg.solve(system, np.append(point, 1))


def impulse() -> Figure:
    """The answer of the filter to a single pixel, as the Gaussian has it and as lattices have."""
    y, x = np.mgrid[:SIDE, :SIDE]
    middle = SIDE // 2
    features = torch.from_numpy(np.stack([x, y], -1).reshape(-1, 2) / WIDTH)
    values = torch.zeros(SIDE * SIDE, 1, dtype=torch.float64)
    values[middle * SIDE + middle] = 1
    exact = np.exp(-((x - middle) ** 2 + (y - middle) ** 2) / (2 * WIDTH**2))
    answers = {
        "Gaussian": exact,
        "one pass": permutohedral_filter(values, features).numpy(),
        "two passes and ring": permutohedral_filter(values, features, passes=2, ring=True).numpy(),
    }
    figure, axes = plt.subplots(1, 4, figsize=(12, 3.1), layout="constrained")
    for axis, (title, answer) in zip(axes, answers.items(), strict=False):
        picture = answer.reshape(SIDE, SIDE) / answer.max()
        axis.imshow(picture, cmap="viridis")
        axis.contour(picture, levels=[0.1, 0.5, 0.9], colors="white", linewidths=0.7)
        axis.set_title(title, fontsize=10)
        axis.set_axis_off()
        axes[3].plot(np.arange(SIDE) - middle, picture[middle], label=title)
    axes[3].set_xlabel("pixels from the impulse, θ = 7")
    axes[3].set_ylim(0, 1.5)
    axes[3].legend(fontsize=8, loc="upper center")
    return figure


def gradients() -> Figure:
    """A loss over θβ for every quality, and its slopes as back-propagation gives them."""
    scores, image, truth = task()
    widths = np.geomspace(6, 40, 25)
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.2), layout="constrained", sharey=True)
    for axis, quality in zip(axes, QUALITIES, strict=True):
        losses = [loss_and_slope(scores, image, truth, quality, width) for width in widths]
        axis.semilogx(widths, [loss for loss, _ in losses], color="0.4")
        for index in range(3, 25, 6):
            loss, slope = losses[index]
            reach = np.array([0.85, 1 / 0.85])
            line = loss + slope * np.log(reach)
            axis.plot(widths[index] * reach, line, color="C3", linewidth=2)
            axis.plot(widths[index], loss, ".", color="C3")
        axis.set_xticks([6, 10, 20, 40], labels=["6", "10", "20", "40"])
        axis.minorticks_off()
        axis.set_title(quality)
        axis.set_xlabel("θβ, grey levels")
    axes[0].set_ylabel("loss")
    return figure


def task() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noisy scores (1, 2, H, W) of a crop of a photo, the crop, and the labels meant."""
    crop = data.coffee()[60:128:2, 150:246:2].copy()
    truth = (crop[..., 1] > 110).astype(np.int64)
    noise = np.random.default_rng(0).standard_normal(truth.shape)
    score = (2 * truth - 1) * 0.6 + gaussian_filter(noise, 2) * 5
    scores = torch.from_numpy(np.stack([-score, score]).astype(np.float32))[None]
    image = torch.from_numpy(crop).permute(2, 0, 1)[None].float()
    return scores, image, torch.from_numpy(truth)[None]


def loss_and_slope(
    scores: torch.Tensor, image: torch.Tensor, truth: torch.Tensor, quality: str, width: float
) -> tuple[float, float]:
    """The mean negative log-likelihood and its derivative by log θβ."""
    parameters = CRFParameters(theta_alpha=20, theta_beta=width, w_bilateral=4)
    crf = DenseCRF(parameters, quality=quality)
    loss = torch.nn.functional.nll_loss(crf(scores, image).clamp(min=1e-6).log(), truth)
    loss.backward()
    gradient = crf.bilateral.log_theta_colour.grad
    assert gradient is not None
    return loss.item(), gradient.sum().item()


if __name__ == "__main__":
    plt.switch_backend("agg")
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "images")
