"""Which of many jobs is still wanted: the latest of its kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_deepcrf.session.events import Job

RESULT_KINDS = ("segment", "refine", "region", "live")
"""Kinds whose outcome belongs to one image and one source of scores."""


class Generations:
    """A count for every kind of job; a job carries the count at which it was made."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def supersede(self, *kinds: str) -> None:
        """No job of these kinds that was made so far is wanted any more."""
        for kind in kinds:
            self._counts[kind] = self._counts.get(kind, 0) + 1

    def next(self, kind: str) -> int:
        """The number of a new job, which supersedes the others of its kind."""
        self.supersede(kind)
        return self._counts[kind]

    def is_current(self, job: Job) -> bool:
        """Whether nothing superseded the job."""
        return self._counts.get(job.kind) == job.generation
