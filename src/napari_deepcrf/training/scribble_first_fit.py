"""The first fit to the strokes, and which maps it may use: all, or only those of local detail.

Any two strokes are told apart by a map that varies slowly, whatever it shows: all over a stroke it
has about one value. Where objects are small and many (nuclei), such maps then decide for whole
neighbourhoods. The strokes cannot say so, since every fit has them right. The image can: a fit that
found the objects has its borders where the image has edges, so that the CRF changes little.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from napari_deepcrf.models.fine_head import FineHead
from napari_deepcrf.models.texture import SCALES
from napari_deepcrf.training.scribble_fit import Strokes, class_balanced, fit_to_strokes

LOCAL_MAPS = len(SCALES) + 3
"""The first maps of `FineUnaryNetwork.maps`: colour and texture, and three hidden ones. They change
at the edges of objects."""

Results = Iterable[tuple[Tensor, Tensor]]
"""Of every image (1, L, H, W) scores, and the CRF's (1, L, H, W) marginals from them."""


def first_fit(
    head: FineHead,
    images: Sequence[Sequence[Tensor]],
    strokes: Sequence[Strokes],
    infer: Callable[[], Results],
) -> float:
    """Fit the head to the strokes with the local maps and with all, and keep the more credible.

    Parameters
    ----------
    images
        The maps of every image, as `FineUnaryNetwork.maps` gives them.
    strokes
        Of every image.
    infer
        Applies the head, as it is then, and the CRF to the images.

    Returns
    -------
    float
        The loss of the fit that was kept, in nats.
    """
    loss = fit_to_strokes(head, images, strokes, first_maps=LOCAL_MAPS)
    local, local_credit = head.state_dict(), credibility(infer(), strokes)
    local = {name: value.clone() for name, value in local.items()}
    loss_of_all = fit_to_strokes(head, images, strokes)
    if credibility(infer(), strokes) > local_credit:
        return loss_of_all
    head.load_state_dict(local)
    return loss


def credibility(results: Results, strokes: Sequence[Strokes]) -> float:
    """Agreement of scores and marginals, times the probability of the strokes' classes; at most 1.

    The agreement is Cohen's kappa of the two label maps, so that calling everything background does
    not count as agreeing. The probability is the scores' own, a geometric mean with every class
    counting alike.
    """
    pairs, right = [], []
    for one, (scores, marginals) in zip(strokes, results, strict=True):
        count = scores.shape[1]
        both = (scores.argmax(1) * count + marginals.argmax(1)).flatten()
        pairs.append(torch.bincount(both, minlength=count**2).view(count, count))
        at = F.log_softmax(scores[0, :, one.points.rows, one.points.columns], 0)
        right.append(at.gather(0, one.classes[None])[0])
    joint = torch.stack(pairs).sum(0).double()
    joint = joint / joint.sum()
    chance = float(joint.sum(0) @ joint.sum(1))
    kappa = (float(joint.trace()) - chance) / max(1 - chance, 1e-9)
    balance = class_balanced(torch.cat([one.classes for one in strokes]))
    return kappa * float((balance * torch.cat(right)).sum().exp())
