"""The unary network, the joint model, checkpoints and the models known by name."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from napari_deepcrf.models.deepcrf import DeepCRF as DeepCRF
    from napari_deepcrf.models.mobilenet import MobileNetV2 as MobileNetV2
    from napari_deepcrf.models.unary import UnaryNetwork as UnaryNetwork
    from napari_deepcrf.models.vgg16 import VGG16 as VGG16
    from napari_deepcrf.models.zoo import ModelEntry as ModelEntry
    from napari_deepcrf.models.zoo import available_models as available_models

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "deepcrf": ["DeepCRF"],
        "mobilenet": ["MobileNetV2"],
        "unary": ["UnaryNetwork"],
        "vgg16": ["VGG16"],
        "zoo": ["ModelEntry", "available_models"],
    },
)
