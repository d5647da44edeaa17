"""The application without a window: state, use cases, and the work they hand out.

`Session` holds the image, the model, the CRF's settings and the last result, and emits psygnal
events when they change. Its use cases return `Job` values, generators that any worker (or a
plain loop) may run; what they yield comes back through `Session.receive`.
"""

from napari_deepcrf.session.events import Job, ModelReady, Progress, ResultReady
from napari_deepcrf.session.images import ImageSource, ScoreSource
from napari_deepcrf.session.results import Identity, Result
from napari_deepcrf.session.session import Session
from napari_deepcrf.session.settings import CRFSettings

__all__ = [
    "CRFSettings",
    "Identity",
    "ImageSource",
    "Job",
    "ModelReady",
    "Progress",
    "Result",
    "ResultReady",
    "ScoreSource",
    "Session",
]
