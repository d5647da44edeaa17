"""The dense CRF: potentials, kernels, mean-field inference and its gradients.

What people use is `dense_crf.DenseCRF`, a torch module. Where to look for

- what it is given: `parameters` (weights and widths as plain values), `options` (its choices, and
  the normalisations), `checks` (of images and scores), `potentials` (scores from probabilities,
  labels and energies);
- what it learns: `learnable` (weights, widths and compatibilities as torch parameters);
- what it keeps of images: `features` (coordinates of pixels), `prepared` (kernels at given widths);
- how it infers: `mean_field` (the problem and the parallel update), `fused` (the same by compiled
  kernels), `convergent` (updates that never raise the `divergence`), `sequential` (the ground
  truth), `updates` (one by one, with their divergence);
- the rest: `reductions` (sums that do not depend on threads), `warm_up` (compiling ahead).

Names load on first use, so that ``CRFParameters`` comes without torch.
"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from napari_deepcrf.crf.dense_crf import DenseCRF as DenseCRF
    from napari_deepcrf.crf.parameters import CRFParameters as CRFParameters
    from napari_deepcrf.crf.parameters import KernelParameters as KernelParameters

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "dense_crf": ["DenseCRF"],
        "parameters": ["CRFParameters", "KernelParameters"],
    },
)
