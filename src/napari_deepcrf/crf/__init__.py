"""The dense CRF: potentials, kernels, mean-field inference and its gradients.

`dense_crf.DenseCRF` is the module that people use: of `learnable` parameters it makes a
`mean_field.MeanFieldProblem`, over kernels that `prepared` builds once for a batch of images.
`fused` hands that to compiled kernels; `mean_field`, `convergent` and `sequential` are the updates
in plain PyTorch, `energy` is what they minimise. `potentials` makes scores of what people have.

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
