"""Plain and convergent updates where the weights are strong: the plot of docs/mathematics.md.

    python benchmarks/convergence.py [docs/images/convergence.png]

A crop of scikit-image's astronaut, noisy scores, three labels, narrow kernels of large weight,
every pair of pixels (quality "exact"), no self term: the divergence is then a true KL divergence.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from matplotlib import pyplot as plt
from skimage import data

from napari_deepcrf import CRFParameters, DenseCRF

UPDATES = 40
PARAMS = CRFParameters(
    w_spatial=30, theta_gamma=0.6, w_bilateral=30, theta_alpha=0.6, theta_beta=40
)


def values(inference: str, weight: float) -> tuple[list[float], list[float]]:
    """The divergence after every update, and how much that update moved the marginals."""
    image = data.astronaut()[60:108:2, 190:254:2].transpose(2, 0, 1)
    scores = np.random.default_rng(0).standard_normal((3, 24, 32))
    crf = DenseCRF(
        PARAMS,
        quality="exact",
        inference=inference,
        iterations=UPDATES,
        self_term=False,
        compatibility="diagonal",
        num_classes=3,
    ).double()
    with torch.no_grad():
        assert crf.compatibility.values is not None
        crf.compatibility.values.fill_(weight)
        updates = crf.updates(torch.tensor(scores)[None], torch.tensor(image.copy())[None])
        pairs = [(float(u.kl[0]), u.change) for u in updates]
    kl, change = zip(*pairs, strict=True)
    return list(kl), list(change)


def main() -> None:
    figure, axes = plt.subplots(2, 2, figsize=(9, 5.5), sharex=True, layout="constrained")
    cases = [("labels attract (Potts)", 1.0), ("labels repel (µ = −½ on the diagonal)", -0.5)]
    for column, (title, weight) in enumerate(cases):
        for inference, style in (("parallel", "o-"), ("convergent", "s-")):
            kl, change = values(inference, weight)
            label = "plain" if inference == "parallel" else "convergent"
            axes[0, column].plot(kl, style, markersize=3, label=label)
            axes[1, column].semilogy(range(1, UPDATES + 1), change[1:], style, markersize=3)
            print(f"{title}: {label}: KL {kl[0]:.1f} -> {kl[-1]:.1f}, last change {change[-1]:.2g}")
        axes[0, column].set_title(title)
        axes[1, column].set_xlabel("update")
    axes[0, 0].set_ylabel("KL divergence + const (nats)")
    axes[1, 0].set_ylabel("mean total variation")
    axes[0, 0].legend()
    figure.savefig(sys.argv[1] if len(sys.argv) > 1 else "docs/images/convergence.png", dpi=110)


if __name__ == "__main__":
    main()
