"""Interactive segmentation and fine-tuning with a jointly trained VGG16 and dense CRF.

The public names load on first use, so that importing the package costs nothing and pulls in
neither torch, Qt nor napari.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "crf": ["CRFParameters", "DenseCRF"],
        "inference": ["Predictor", "Segmentation", "refine", "segment"],
        "lattice": ["permutohedral_filter"],
        "models": ["DeepCRF"],
        "training": ["fit"],
    },
)
