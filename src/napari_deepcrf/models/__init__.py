"""The joint model of network and CRF, its checkpoints and its names.

`deepcrf.DeepCRF` is a `unary.UnaryNetwork` with a dense CRF behind it. The network wraps a
`backbone.Backbone`, `vgg16` (which `imagenet` starts) or `mobilenet`; `fine_head` and `texture`
give it finer scores for scribbles. `checkpoint` and `crf_config` are the file, `zoo` the names.
"""

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
