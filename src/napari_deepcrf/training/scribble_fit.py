"""Fitting the finer top layer to scribbles, on hidden maps that were computed before.

The weights are those of a multinomial logistic regression, so that the fit is convex, quick and
the same every time. A second use of the same fit lets the CRF speak for the unlabelled pixels:
its marginals become their targets (self-training, as ScribbleSup alternates, Lin et al. 2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_deepcrf.data.samples import VOID
from napari_deepcrf.models.fine_head import FineHead, MapScores, responses

PIXELS_PER_CLASS = 1000
"""Most labelled pixels of a class that a fit looks at; neighbours on a stroke say the same."""
PENALTY = 0.03
"""Weight of the squared weights: strokes are few and their pixels alike."""
MARGIN = 2.0
"""Mean lead of the right class at the strokes, in nats, that a fit's scores are scaled to: the
penalty leaves them small, and the CRF's weights are in these units."""
STEPS = 25
"""Most iterations of L-BFGS."""


@dataclass(frozen=True, eq=False)
class Points:
    """n pixels of an H × W image."""

    size: tuple[int, int]
    """(H, W)."""
    rows: Tensor
    """(n,) integers."""
    columns: Tensor
    """(n,) integers."""

    def sample(self, maps: Tensor) -> Tensor:
        """(n, C) values of a (1, C, h, w) map of the image, as enlarged bilinearly."""
        height, width = self.size
        grid = torch.stack(
            [(self.columns + 0.5) / width * 2 - 1, (self.rows + 0.5) / height * 2 - 1], dim=1
        )
        sampled = F.grid_sample(
            maps, grid.to(maps)[None, :, None], padding_mode="border", align_corners=False
        )
        return sampled[0, :, :, 0].T


@dataclass(frozen=True, eq=False)
class Strokes:
    """Labelled pixels of an image, of every class alike."""

    points: Points
    classes: Tensor
    """(n,) class indices."""

    @classmethod
    def of(cls, labels: Tensor, seed: int = 0) -> Strokes:
        """At most `PIXELS_PER_CLASS` pixels of every class of (H, W) labels with `VOID`.

        They are on the labels' device, and the same on each.
        """
        generator = torch.Generator().manual_seed(seed)
        flat = labels.flatten().long()
        chosen = []
        for value in flat.unique().tolist():  # type: ignore[no-untyped-call]
            if value != VOID:
                places = torch.nonzero(flat == value)[:, 0]
                order = torch.randperm(len(places), generator=generator, device="cpu")
                chosen.append(places[order[:PIXELS_PER_CLASS]])
        index = torch.cat(chosen)
        height, width = labels.shape
        return cls(Points((height, width), index // width, index % width), flat[index])


def random_points(size: tuple[int, int], count: int, seed: int = 0) -> Points:
    """``count`` pixels from anywhere in an image of ``size`` (H, W), some of them perhaps twice."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(0, size[0] * size[1], (count,), generator=generator, device="cpu")
    return Points(size, index // size[1], index % size[1])


@torch.no_grad()
def centre_on_strokes(
    head: FineHead, images: Sequence[Sequence[Tensor]], strokes: Sequence[Strokes]
) -> None:
    """Put every feature's thresholds, see `MapScores`, where they tell the classes apart.

    The middle of the classes' means becomes 0 and the mean squared distance from it 1, every class
    counting alike: of a small class against a large background too.
    """
    classes = torch.cat([one.classes for one in strokes])
    for number, share in enumerate(head.shares):
        assert isinstance(share, MapScores)
        values = torch.cat(
            [
                one.points.sample(share.features(maps[number]))
                for maps, one in zip(images, strokes, strict=True)
            ]
        )
        present = classes.unique()  # type: ignore[no-untyped-call]
        groups = [values[classes == value] for value in present]
        middle = torch.stack([group.mean(0) for group in groups]).mean(0)
        variance = torch.stack([(group - middle).square().mean(0) for group in groups]).mean(0)
        share.standardise(middle, variance.sqrt().clamp_min(1e-3))


@torch.no_grad()
def design(head: FineHead, maps: Sequence[Tensor], points: Points) -> Tensor:
    """(n, D) responses at n pixels of an image: the design matrix of the head's regression.

    Of all its maps, or of as many of the first ones as are given.
    """
    parts = []
    for share, one in zip(head.shares, maps, strict=False):
        assert isinstance(share, MapScores)
        parts.append(points.sample(responses(share.features(one))))
    return torch.cat(parts, 1)


def fit_weights(head: FineHead, rows: Tensor, targets: Tensor, weights: Tensor) -> float:
    """Set the head's weights by multinomial logistic regression with an L2 penalty.

    Parameters
    ----------
    rows
        (n, D), as `design` gives them; the weights of maps that it was not given become 0.
    targets
        (n, L) probabilities. Classes of no probability anywhere get scores far below the others'.
    weights
        (n,) of the rows, with the sum 1.

    Returns
    -------
    float
        The minimum of Σ weights · cross-entropy + `PENALTY` · ‖W‖², in nats.
    """
    present = torch.nonzero(targets.sum(0) > 0)[:, 0]
    wanted = targets[:, present]
    with torch.inference_mode(False), torch.enable_grad():
        relevance = _relevance(rows, wanted, weights)
        rows, wanted, weights = rows * relevance, wanted.clone(), weights.clone()
        weight = rows.new_zeros(len(present), rows.shape[1], requires_grad=True)
        bias = rows.new_zeros(len(present), requires_grad=True)
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimizer.zero_grad()
            log_q = F.log_softmax(F.linear(rows, weight, bias), 1)
            value = -(weights[:, None] * wanted * log_q).sum()
            value = value + PENALTY * weight.square().sum()
            value.backward()  # type: ignore[no-untyped-call]
            return value

        optimizer.step(loss)  # type: ignore[no-untyped-call]
        value = float(loss().detach())  # what step returns is the loss before the first step
    weight, bias = weight.detach(), bias.detach()
    gain = _gain(F.linear(rows, weight, bias), wanted, weights)
    _store(head, present, gain * relevance * weight, gain * bias)
    return value


def fit_to_strokes(
    head: FineHead,
    images: Sequence[Sequence[Tensor]],
    strokes: Sequence[Strokes],
    *,
    first_maps: int | None = None,
) -> float:
    """Fit the head to the labelled pixels alone, by all maps or the first; returns the loss."""
    pairs = zip(images, strokes, strict=True)
    rows = torch.cat([design(head, maps[:first_maps], one.points) for maps, one in pairs])
    classes = torch.cat([one.classes for one in strokes])
    targets = F.one_hot(classes, len(head.bias)).float()
    return fit_weights(head, rows, targets, class_balanced(classes))


def class_balanced(classes: Tensor) -> Tensor:
    """(n,) weights with the sum 1, every class that occurs having the same share."""
    counts = torch.bincount(classes).float()
    return 1 / (counts[classes] * (counts > 0).sum())


def _relevance(rows: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """(D,) share of each response's variance that lies between the classes, 0 to 1.

    Scaling by it lets the penalty fall on what hardly tells the classes apart: most of the
    responses, which would otherwise outvote the few that do where no stroke contradicts them.
    """
    share = weights[:, None] * targets
    share = share / share.sum(0)
    means = share.T @ rows
    middle = means.mean(0)
    total = ((share.mean(1)[:, None]) * (rows - middle).square()).sum(0)
    return (means - middle).square().mean(0) / total.clamp_min(1e-9)


def _gain(scores: Tensor, targets: Tensor, weights: Tensor) -> float:
    """The factor that brings the right class's mean lead over the next one to `MARGIN`."""
    right = targets.argmax(1, keepdim=True)
    others = scores.scatter(1, right, -torch.inf).max(1).values
    lead = float((weights * (scores.gather(1, right)[:, 0] - others)).sum())
    return MARGIN / max(lead, 0.05 * MARGIN)


@torch.no_grad()
def _store(head: FineHead, present: Tensor, weight: Tensor, bias: Tensor) -> None:
    """Put (classes, D) weights and (classes,) biases into the head, map by map."""
    start = 0
    for share in head.shares:
        assert isinstance(share, MapScores)
        end = start + share.weight.shape[1]
        share.weight.zero_()
        if start < weight.shape[1]:
            share.weight[present] = weight[:, start:end]
        start = end
    head.bias.fill_(float(bias.min()) - _ABSENT)
    head.bias[present] = bias


_ABSENT = 30.0
"""Nats by which a class without a stroke stays behind."""
