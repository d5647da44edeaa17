"""What lasts from one start to the next, in napari's settings for plugins."""

from __future__ import annotations

from typing import Any

_PLUGIN = "napari-deepcrf"
_defaults: dict[str, Any] = {"model": "voc-compact", "device": "auto", "live": False}


def recall(name: str) -> Any:
    """The last ``model``, ``device`` or ``live`` switch."""
    settings = _settings()
    return _defaults[name] if settings is None else getattr(settings, name)


def remember(name: str, value: Any) -> None:
    """Keep a choice for the next start."""
    settings = _settings()
    if settings is not None and getattr(settings, name) != value:
        setattr(settings, name, value)


def _settings() -> Any:
    """The group of the manifest's configuration; None where napari does not know the manifest."""
    from napari.settings import get_plugin_settings

    try:
        return get_plugin_settings(_PLUGIN).start
    except KeyError:
        return None
