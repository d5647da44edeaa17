"""Two-stage training as generators of events, Qt-free."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from napari_deepcrf.training.config import TrainConfig as TrainConfig
    from napari_deepcrf.training.config import named_config as named_config
    from napari_deepcrf.training.evaluate import evaluate as evaluate
    from napari_deepcrf.training.run import TrainingRun as TrainingRun
    from napari_deepcrf.training.run import fit as fit

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "config": ["TrainConfig", "named_config"],
        "evaluate": ["evaluate"],
        "run": ["TrainingRun", "fit"],
    },
)
