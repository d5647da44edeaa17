"""Two-stage training as generators of events, Qt-free.

- `config` holds the recipes; `run` goes through the stages and hands out `events`.
- `start` makes the model that a run begins with, `run_data` and `batches` what it sees.
- `loop` is what both stages share: steps, validation, resuming (`state`), by several processes
  (`distributed`), in mixed `precision`, with an `average` of the weights. `unary_stage` and
  `joint_stage` are the two.
- Scribbles of new classes have stages of their own: `scribble_stages`, with `scribble_config`,
  `scribble_first_fit` and `scribble_fit`.
- `metrics` and `evaluate` measure a model on a dataset; `search` looks for a CRF behind a network.
- `records` writes down what happens; `report`, `curves` and `preview` show it.
"""

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
