"""The joint model: the unary network and the dense CRF behind it [paper, section 3]."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from napari_deepcrf.crf import DenseCRF
from napari_deepcrf.messages import first_line
from napari_deepcrf.models.backbone import Backbone
from napari_deepcrf.models.checkpoint import check_tensors, read_checkpoint, write_checkpoint
from napari_deepcrf.models.crf_config import build_crf, crf_configuration
from napari_deepcrf.models.fine_head import FineUnaryNetwork
from napari_deepcrf.models.mobilenet import MobileNetV2
from napari_deepcrf.models.unary import UnaryNetwork
from napari_deepcrf.models.vgg16 import VGG16
from napari_deepcrf.models.zoo import is_known, model_path

_BACKBONES: dict[str, type[Backbone]] = {
    "vgg16-dense-crf": VGG16,
    "mobilenetv2-dense-crf": MobileNetV2,
}
"""The architectures that checkpoints name."""

MOST_CLASSES = 255
"""Label images have 8 bits everywhere, of which 255 is void."""


class DeepCRF(nn.Module):
    """Scores F(x, y) whose unaries are a network's and whose pairwise terms are a dense CRF's.

    Parameters
    ----------
    network
        Gives the unary scores f_i at every pixel of the original image.
    crf
        Gives the marginals q_i after T mean-field updates [paper, eq. 5].
    class_names
        One name for each of the L labels; the first is the background.
    name
        What messages call the model.

    Raises
    ------
    ValueError
        If the names, or a learnt compatibility of the CRF, are not those of L labels.
    """

    def __init__(
        self,
        network: UnaryNetwork,
        crf: DenseCRF,
        class_names: tuple[str, ...],
        *,
        name: str = "model",
    ) -> None:
        super().__init__()
        if len(class_names) != network.backbone.num_classes:
            raise ValueError(
                f"class_names: expected {network.backbone.num_classes} names, "
                f"got {len(class_names)}"
            )
        if len(class_names) > MOST_CLASSES:
            raise ValueError(
                f"class_names: expected at most {MOST_CLASSES} names, got {len(class_names)}"
            )
        compatibility = crf.compatibility.values
        if compatibility is not None and len(compatibility) != len(class_names):
            raise ValueError(
                f"crf: expected compatibilities of {len(class_names)} classes, "
                f"got {len(compatibility)}"
            )
        self.network = network
        self.crf = crf
        self.class_names = tuple(class_names)
        self.name = name

    @classmethod
    def load(cls, name_or_path: str | Path) -> DeepCRF:
        """Load a model of the zoo by name, or a ``.safetensors`` checkpoint by path.

        Returns it on the CPU in evaluation mode.

        Raises
        ------
        FileNotFoundError
            If there is neither a model of this name nor such a file.
        ValueError
            If the file is no whole checkpoint of this package.
        """
        path = model_path(str(name_or_path)) if is_known(str(name_or_path)) else Path(name_or_path)
        if not path.is_file():
            raise FileNotFoundError(f"{name_or_path}: no model of this name and no such file")
        tensors, config = read_checkpoint(path)
        # A network of any size costs nothing on the meta device: only one whose weights are in
        # the file gets memory.
        check_tensors(path, _build_network(path, config, torch.device("meta")), tensors)
        model = _build(path, config)
        model.network.load_state_dict(tensors)
        model.name = path.stem
        return model.eval()

    def save(self, path: str | Path, *, half: bool = False) -> None:
        """Write a checkpoint that carries its own configuration.

        ``half`` stores the network's weights as float16; the CRF's numbers stay exact.

        Raises
        ------
        OSError
            If the file cannot be written; an older one of this name stays as it was.
        """
        tensors = {
            name: value.half() if half and value.is_floating_point() else value
            for name, value in self.network.state_dict().items()
        }
        write_checkpoint(path, tensors, self.configuration())

    @property
    def architecture(self) -> str:
        """The name by which checkpoints tell kinds of backbones apart."""
        kind = type(self.network.backbone)
        return next(name for name, known in _BACKBONES.items() if known is kind)

    def configuration(self) -> dict[str, Any]:
        """Everything that rebuilds the model but the weights, as JSON-able values."""
        return {
            "architecture": self.architecture,
            "class_names": list(self.class_names),
            "network": {
                **self.network.backbone.configuration(),
                "input_size": self.network.input_size,
                "scales": list(self.network.scales),
                **({"fine": True} if isinstance(self.network, FineUnaryNetwork) else {}),
            },
            "crf": crf_configuration(self.crf),
        }

    def unary(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) images in 0–255 → (B, L, H, W) unary scores."""
        scores: Tensor = self.network(image)
        return scores

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) images in 0–255 → (B, L, H, W) marginals after the last update."""
        marginals: Tensor = self.crf(self.unary(image), image)
        return marginals


def _build_network(path: Path, config: dict[str, Any], device: torch.device) -> UnaryNetwork:
    """The network that a configuration describes, with fresh weights on ``device``."""
    architecture = config.get("architecture")
    if architecture not in list(_BACKBONES):
        known = " or ".join(map(repr, _BACKBONES))
        raise ValueError(f"{path}: expected architecture {known}, got {architecture!r}")
    with _reporting_damage(path), device:
        network = dict(config["network"])
        input_size, scales = network.pop("input_size"), network.pop("scales")
        fine = network.pop("fine", False)
        backbone = _BACKBONES[architecture](**network)
        if fine:  # with scales of its own
            return FineUnaryNetwork(backbone, input_size=input_size)
        return UnaryNetwork(backbone, input_size=input_size, scales=scales)


def _build(path: Path, config: dict[str, Any]) -> DeepCRF:
    """The model that a configuration describes, with fresh weights."""
    network = _build_network(path, config, torch.device("cpu"))
    with _reporting_damage(path):
        names = config["class_names"]
        if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise ValueError(f"class_names: expected texts, got {names!r:.80}")
        return DeepCRF(network, build_crf(config["crf"]), tuple(names))


@contextmanager
def _reporting_damage(path: Path) -> Iterator[None]:
    """Turn what wrong values of a configuration lead to into a ValueError of one line."""
    try:
        yield
    # torch's errors for impossible sizes are RuntimeErrors, of several lines.
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as e:
        reason = first_line(e)
        raise ValueError(f"{path}: the checkpoint's configuration is damaged ({reason})") from e
