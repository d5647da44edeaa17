"""A run's datasets as its stages see them: read and checked before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from napari_deepcrf.data.copies import ReducedCopies
from napari_deepcrf.data.patches import Patches
from napari_deepcrf.data.problems import collecting
from napari_deepcrf.data.samples import DatasetError, EvenSubset, SegmentationDataset
from napari_deepcrf.training.config import StageConfig, TrainConfig, UnaryStage

Role = Literal["train", "validation"]


class RunData:
    """The samples of every stage.

    Raises `DatasetError` that lists everything wrong with both datasets.
    """

    def __init__(
        self,
        config: TrainConfig,
        train: SegmentationDataset,
        validation: SegmentationDataset | None,
        cache: Path | None,
    ) -> None:
        self._config = config
        self._copies: dict[tuple[Role, int | None], ReducedCopies] = {}
        self._patches: dict[Role, Patches] = {}
        given: dict[Role, SegmentationDataset | None] = {"train": train, "validation": validation}
        stages = [stage for stage in (config.unary, config.joint) if stage is not None]
        problems: list[str] = []
        for role, dataset in given.items():
            if dataset is None:
                continue
            # What is wrong is so at any size: the first copies tell it all.
            with collecting(problems, "" if validation is None else f"{role}: "):
                for size in {stage.copy_size: None for stage in stages}:
                    self._copies[role, size] = ReducedCopies(dataset, size, cache=cache)
                if config.patch_size is not None:
                    self._patches[role] = Patches(self._copies[role, None], config.patch_size)
        if problems:
            raise DatasetError("data", problems)

    def train(self, stage: StageConfig) -> SegmentationDataset:
        """Images to take crops from in stage 1, whole images or patches in stage 2."""
        patches = None if isinstance(stage, UnaryStage) else self._patches.get("train")
        return patches or self._copies["train", stage.copy_size]

    def validation(self, stage: StageConfig) -> SegmentationDataset | None:
        """Whole images or patches, if there is anything to validate on."""
        return self._measured("validation", stage)

    def reported(self) -> dict[str, SegmentationDataset]:
        """What the report is about: the last stage's samples, at most ``reported`` of each."""
        stage = self._config.joint or self._config.unary
        assert stage is not None
        roles: tuple[Role, ...] = ("train", "validation")
        found = {role: self._measured(role, stage) for role in roles}
        return {
            role: EvenSubset(dataset, self._config.reported)
            for role, dataset in found.items()
            if dataset is not None
        }

    def _measured(self, role: Role, stage: StageConfig) -> SegmentationDataset | None:
        return self._patches.get(role) or self._copies.get((role, stage.copy_size))
