"""Write MobileNetV2's ImageNet weights as a start: MODEL.tflite VOCDEVKIT OUT.safetensors.

MODEL.tflite is TensorFlow's quantised MobileNetV2 1.0 224 (Apache-2.0, trained on ImageNet alone),
8-bit weights with one scale per channel, batch norm folded. Needs ai-edge-litert. Training wants
batch norm back: it gets the statistics that the folded layers show on training images, and
the scale and shift that undo them, so that the network computes what it did before.
"""

import sys
from collections.abc import Iterator

import numpy as np
import torch
from ai_edge_litert.interpreter import Interpreter
from torch import Tensor, nn

from napari_deepcrf.crf import DenseCRF
from napari_deepcrf.data.copies import ReducedCopies
from napari_deepcrf.data.samples import EvenSubset
from napari_deepcrf.data.voc import VOC_CLASSES, VOCDataset
from napari_deepcrf.models import DeepCRF, MobileNetV2, UnaryNetwork
from napari_deepcrf.models.backbone import ConvBlock
from napari_deepcrf.training.batches import image_tensor

CALIBRATION_IMAGES = 64
INPUT_SIZE = 320
OUTPUT_STRIDE = 16


def stored_layers(path: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Weights (O, I, kH, kW) and biases of all convolutions in order, the classifier's left out."""
    interpreter = Interpreter(path)
    constants = []
    for detail in interpreter.get_tensor_details():
        scales = detail["quantization_parameters"]["scales"]
        if len(scales) > 1 or (detail["dtype"] == np.int32 and len(scales)):
            stored = interpreter.get_tensor(detail["index"]).astype(np.float32)
            axis = detail["quantization_parameters"]["quantized_dimension"]
            shape = [-1 if n == axis else 1 for n in range(stored.ndim)]
            constants.append(torch.from_numpy(stored * scales.reshape(shape)))
    for weight, bias in zip(constants[::2], constants[1::2], strict=True):
        depthwise = weight.shape[0] == 1
        yield weight.permute((3, 0, 1, 2) if depthwise else (0, 3, 1, 2)).contiguous(), bias


def load(network: UnaryNetwork, path: str) -> None:
    """Put the stored weights into every block of a network without batch norm but the head's."""
    blocks = {
        n: b for n, b in network.backbone.features.named_modules() if isinstance(b, ConvBlock)
    }
    pretrained = [block for name, block in blocks.items() if not name.startswith("fc")]
    with torch.no_grad():
        for block, (weight, bias) in zip(pretrained, stored_layers(path), strict=False):
            assert block.conv.bias is not None
            block.conv.weight.copy_(weight)
            block.conv.bias.copy_(bias)
        # TensorFlow's network takes x / 127.5 − 1, ours the normalised image.
        stem = pretrained[0].conv
        offset = network.mean / 127.5 - 1
        stem.bias += (stem.weight * offset).sum((1, 2, 3))
        stem.weight *= network.std / 127.5


@torch.no_grad()
def with_batch_norm(plain: UnaryNetwork, images: list[Tensor]) -> UnaryNetwork:
    """The same function with batch norm, whose statistics are those of the images."""
    sums: dict[str, Tensor] = {}
    for name, block in plain.backbone.named_modules():
        if isinstance(block, ConvBlock):

            def collect(module: nn.Module, _: object, y: Tensor, name: str = name) -> None:
                moments = torch.stack([y.mean((0, 2, 3)), y.square().mean((0, 2, 3))])
                sums[name] = sums.get(name, torch.zeros(())) + moments / len(images)

            block.conv.register_forward_hook(collect)
    for image in images:
        plain.coarse(image)
    backbone = plain.backbone.with_changes(batch_norm=True)
    for name, (mean, square) in sums.items():
        block, old = backbone.get_submodule(name), plain.backbone.get_submodule(name).conv
        norm = block.norm
        variance = (square - mean.square()).clamp_min(1e-4)
        block.conv.weight.copy_(old.weight)
        norm.running_mean.copy_(mean - old.bias)
        norm.running_var.copy_(variance)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.copy_(mean)
    return UnaryNetwork(backbone, input_size=plain.input_size)


def main(model: str, devkit: str, out: str) -> None:
    """Write the start, with a random head for VOC's classes, as a checkpoint."""
    torch.manual_seed(0)
    backbone = MobileNetV2(len(VOC_CLASSES), output_stride=OUTPUT_STRIDE)
    plain = UnaryNetwork(backbone, input_size=INPUT_SIZE).eval()
    load(plain, model)
    train = EvenSubset(VOCDataset(devkit, "train_aug"), CALIBRATION_IMAGES)
    copies = ReducedCopies(train, INPUT_SIZE)
    images = [image_tensor(copies[index]) for index in range(len(copies))]
    network = with_batch_norm(plain, images).eval()
    with torch.inference_mode():
        before, after = (net.backbone.features[:18](images[0]) for net in (plain, network))
        print("largest difference", float((before - after).abs().max()), "of", float(before.std()))
    DeepCRF(network, DenseCRF(), VOC_CLASSES).save(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
