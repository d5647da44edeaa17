"""Both stages on a few scribbled images: a finer top layer, then that layer and the CRF together.

The hidden layers stay as they are, so their maps are computed once; a step of stage 1 is a convex
fit, and one of stage 2 a pass of mean field over a whole image. Stage 1 starts from the strokes
(`first_fit`) and ends with rounds of self-training, in which the CRF's marginals label the rest.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_deepcrf.crf import DenseCRF
from napari_deepcrf.data.samples import Sample, SegmentationDataset
from napari_deepcrf.models.deepcrf import DeepCRF
from napari_deepcrf.models.fine_head import FineUnaryNetwork
from napari_deepcrf.training.batches import image_tensor
from napari_deepcrf.training.distributed import rank
from napari_deepcrf.training.events import (
    CheckpointSaved,
    Finished,
    Stage,
    StageEvent,
    StageStarted,
    StepDone,
    Validated,
)
from napari_deepcrf.training.loop import TrainingDivergedError
from napari_deepcrf.training.metrics import measure_iou
from napari_deepcrf.training.scribble_config import ScribbleConfig, adapted_crf
from napari_deepcrf.training.scribble_first_fit import first_fit
from napari_deepcrf.training.scribble_fit import (
    Strokes,
    centre_on_strokes,
    class_balanced,
    design,
    fit_weights,
    random_points,
)

_FLOOR = 1e-4
"""Marginals below this give no gradient: a stroke may slip over an object's edge."""
_TAUGHT = 0.5
"""The share of the unlabelled pixels in a fit's loss."""
_CLIP = 1.0
"""Largest norm of a gradient in stage 2."""


@dataclass(frozen=True, eq=False)
class _Image:
    """A training image with what is computed of it once."""

    name: str
    pixels: Tensor
    """(1, 3, H, W) in 0–255."""
    maps: list[Tensor]
    """(1, C_i, h_i, w_i) each, what the top layer sees."""
    strokes: Strokes

    @property
    def size(self) -> tuple[int, int]:
        return self.strokes.points.size


@dataclass(frozen=True, eq=False)
class _Best:
    """The weights of a stage's best validation."""

    step: int
    mean_iou: float
    weights: dict[str, Tensor]


class ScribbleTrainer:
    """Trains the fine top layer and the CRF of ``model`` in place; iterate over `events`.

    The order of the images is the dataset's, and nothing depends on chance but which pixels are
    looked at, which ``seed`` decides. A stage ends with its weights of the best validation, or
    with the latest where nothing validates or none was better; `restore_best` does the same for
    one that was cancelled. There is no state to continue from: a run takes half a minute, and its
    strokes may have changed since.

    Parameters
    ----------
    folder
        Where ``STAGE-best.safetensors`` is written at the end of each stage; ``None``: nowhere.
    """

    def __init__(
        self,
        model: DeepCRF,
        train: SegmentationDataset,
        config: ScribbleConfig,
        *,
        validation: SegmentationDataset | None = None,
        folder: Path | None = None,
        seed: int = 0,
    ) -> None:
        if not isinstance(model.network, FineUnaryNetwork):
            raise TypeError(
                f"model: expected a FineUnaryNetwork in it, got {type(model.network).__name__}"
            )
        self.model, self.network = model, model.network
        self.train, self.config, self.seed = train, config, seed
        self.validation, self.folder = validation, folder
        self.stages_done = 0
        self._images: list[_Image] = []
        self._best: _Best | None = None

    def events(self) -> Generator[StageEvent]:
        """Train to the end, yielding what happens."""
        yield from self._unary()
        yield from self._joint()

    def restore_best(self) -> None:
        """Put the best weights of the present stage back, if anything validated."""
        if self._best is not None:
            self.model.load_state_dict(self._best.weights)

    def _unary(self) -> Iterator[StageEvent]:
        """Stage 1: one step for each image's maps, then one for each fit."""
        head, count = self.network.fine, len(self.train)
        total = count + 1 + self.config.rounds
        untrained = math.log(self.network.backbone.num_classes)
        yield StageStarted("unary", 0, total)
        crf = DenseCRF(adapted_crf(self.config.crf, self.train))
        self.model.crf = crf.to(self.network.mean.device)
        for index in range(count):
            started = time.perf_counter()
            image = self._look_at(index)
            self._images.append(image)
            yield _step("unary", index + 1, total, untrained, started, image.name)
        started = time.perf_counter()
        maps = [one.maps for one in self._images]
        strokes = [one.strokes for one in self._images]
        head.calibrate(maps)
        centre_on_strokes(head, maps, strokes)
        loss = first_fit(head, maps, strokes, lambda: map(self._infer, self._images))
        yield _step("unary", count + 1, total, loss, started, *self._names)
        yield from self._validate("unary", count + 1)
        for number in range(count + 2, total + 1):
            started = time.perf_counter()
            loss = self._fit_to_crf()
            yield _step("unary", number, total, loss, started, *self._names)
            yield from self._validate("unary", number)
        yield from self._end("unary", total)

    def _joint(self) -> Iterator[StageEvent]:
        """Stage 2: one image a step, in turn."""
        config = self.config
        yield StageStarted("joint", 0, config.iterations)
        yield from self._validate("joint", 0)
        top, crf = list(self.network.fine.parameters()), list(self.model.crf.parameters())
        optimizers = [
            torch.optim.SGD(top, lr=config.top_learning_rate, momentum=0.9),
            torch.optim.Adam(crf, lr=config.crf_learning_rate),
        ]
        teachers = [self._infer(one)[1] for one in self._images]
        for step in range(config.iterations):
            started = time.perf_counter()
            turn = step % len(self._images)
            image = self._images[turn]
            for optimizer in optimizers:
                optimizer.zero_grad(set_to_none=True)
            loss = self._joint_loss(image, teachers[turn])
            loss.backward()  # type: ignore[no-untyped-call]
            value, norm = float(loss.detach()), float(nn.utils.clip_grad_norm_(top + crf, _CLIP))
            if not abs(value) + norm < float("inf"):
                raise TrainingDivergedError(
                    f"loss {value} with gradient norm {norm} at step {step + 1} of the joint "
                    f"stage, image {image.name}"
                )
            for optimizer in optimizers:
                optimizer.step()
            done = _step("joint", step + 1, config.iterations, value, started, image.name)
            yield replace(done, learning_rate=config.top_learning_rate)
            if (step + 1) % config.validate_every == 0 or step + 1 == config.iterations:
                yield from self._validate("joint", step + 1)
        yield from self._end("joint", config.iterations)

    def _validate(self, stage: Stage, step: int) -> Iterator[Validated]:
        """IoU of the network alone in stage 1, of the joint model in stage 2.

        Of equally good weights the later count as the best: a few strokes are soon all right.
        """
        if self.validation is None:
            return
        module = self.model.network if stage == "unary" else self.model
        device = self.network.mean.device

        @torch.no_grad()
        def predict(sample: Sample) -> Tensor:
            labels: Tensor = module(image_tensor(sample).to(device)).argmax(1)[0]
            return labels

        self.model.eval()
        iou = measure_iou(self.validation, predict)
        improved = self._best is None or iou.mean >= self._best.mean_iou
        if improved:
            weights = {name: value.clone() for name, value in self.model.state_dict().items()}
            self._best = _Best(step, iou.mean, weights)
        yield Validated(stage, step, iou.mean, iou.present(), improved)

    def _end(self, stage: Stage, step: int) -> Iterator[StageEvent]:
        """Go on with the stage's best weights, and keep them."""
        self.restore_best()
        best, self._best = self._best, None
        self.stages_done += 1
        if self.folder is not None and rank() == 0:
            path = self.folder / f"{stage}-best.safetensors"
            self.model.save(path)
            yield CheckpointSaved(stage, step, path)
        yield Finished(stage, step, *((step, None) if best is None else (best.step, best.mean_iou)))

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(one.name for one in self._images)

    @torch.no_grad()
    def _look_at(self, index: int) -> _Image:
        self.network.eval()
        sample = self.train[index]
        pixels = image_tensor(sample).to(next(self.network.parameters()).device)
        strokes = Strokes.of(torch.tensor(sample.labels).to(pixels.device), seed=self.seed)
        return _Image(sample.name, pixels, self.network.maps(pixels), strokes)

    def _fit_to_crf(self) -> float:
        """Fit the top layer to the strokes and, elsewhere, to the CRF's marginals."""
        head, num_classes = self.network.fine, self.network.backbone.num_classes
        rows = [design(head, one.maps, one.strokes.points) for one in self._images]
        classes = torch.cat([one.strokes.classes for one in self._images])
        targets = [F.one_hot(classes, num_classes).float()]
        share = max(1, self.config.taught_pixels // len(self._images))
        for one in self._images:
            points = random_points(one.size, share, self.seed)
            rows.append(design(head, one.maps, points))
            targets.append(points.sample(self._infer(one)[1]))
        taught = torch.cat(targets[1:])
        area = taught.sum(0).clamp_min(1)
        weights = [
            (1 - _TAUGHT) * class_balanced(classes),
            _TAUGHT * (taught / area).sum(1) / num_classes,
        ]
        return fit_weights(head, torch.cat(rows), torch.cat(targets), torch.cat(weights))

    @torch.no_grad()
    def _infer(self, image: _Image) -> tuple[Tensor, Tensor]:
        """(1, L, H, W) scores and marginals."""
        scores = self._scores(image)
        return scores, self.model.crf(scores, image.pixels)

    def _scores(self, image: _Image) -> Tensor:
        scores: Tensor = self.network.fine(image.maps, image.size)
        return scores

    def _joint_loss(self, image: _Image, teacher: Tensor) -> Tensor:
        """−log q_i(y_i) at the strokes (equation 6), and all over against stage 1's marginals.

        Every class has the same share in both, however few its pixels.
        """
        marginals = self.model.crf(self._scores(image), image.pixels).clamp_min(_FLOOR)
        points, classes = image.strokes.points, image.strokes.classes
        right = points.sample(marginals).gather(1, classes[:, None])[:, 0]
        labelled = -(class_balanced(classes) * right.log()).sum()
        area = teacher.sum((2, 3), keepdim=True).clamp_min(1)
        taught = -(teacher / area * marginals.log()).sum() / teacher.shape[1]
        loss: Tensor = (1 - _TAUGHT) * labelled + _TAUGHT * taught
        return loss


def _step(
    stage: Stage, step: int, iterations: int, loss: float, started: float, *names: str
) -> StepDone:
    return StepDone(
        stage=stage,
        step=step,
        iterations=iterations,
        loss=loss,
        learning_rate=0.0,  # the fits of stage 1 have none
        seconds=time.perf_counter() - started,
        names=names,
    )
